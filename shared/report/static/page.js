"use strict";
// Pages are whole without this file: it adds the theme toggle, and to the diagrams tooltips, arrow keys and a player.

const THEMES = ["automatic", "light", "dark"];
const SIGNS = { automatic: "◐", light: "☀", dark: "☾" };

function storedTheme() {
  // Some browsers give file:// pages no storage.
  try { return THEMES.includes(localStorage.theme) ? localStorage.theme : "automatic"; } catch { return "automatic"; }
}

function applyTheme(theme) {
  if (theme === "automatic") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

let theme = storedTheme();
applyTheme(theme); // before the body is drawn, so that nothing flashes

function themeToggle(button) {
  const show = () => {
    button.setAttribute("aria-label", `Colour theme: ${theme}`);
    button.title = button.getAttribute("aria-label");
    button.firstElementChild.textContent = SIGNS[theme];
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    applyTheme(theme);
    try { localStorage.theme = theme; } catch { /* it then lasts for this page only */ }
    show();
  });
  button.hidden = false;
  show();
}

function tipFor(box, mark) {
  const list = document.createElement("dl");
  for (const [name, text] of JSON.parse(mark.dataset.tip)) {
    const term = document.createElement("dt"), detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = text;
    list.append(term, detail);
  }
  box.replaceChildren(list);
  box.hidden = false;
  place(box, mark);
}

function place(box, mark) {
  const at = mark.getBoundingClientRect(), own = box.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left + 24), innerWidth - own.width - 8);
  const below = at.top + 30 + own.height < innerHeight;
  box.style.left = `${left}px`;
  box.style.top = `${below ? at.top + 30 : Math.max(8, at.top - own.height - 10)}px`;
}

function neighbour(marks, mark, key) {
  const place = marks.indexOf(mark), lane = Number(mark.dataset.lane), y = Number(mark.dataset.y);
  if (key === "Home") return marks[0];
  if (key === "End") return marks.at(-1);
  if (key === "ArrowDown") return marks[place + 1];
  if (key === "ArrowUp") return marks[place - 1];
  const side = key === "ArrowRight" ? 1 : -1;
  const others = marks.filter((other) => (Number(other.dataset.lane) - lane) * side > 0);
  const next = Math.min(...others.map((other) => Math.abs(other.dataset.lane - lane)));
  return others.filter((other) => Math.abs(other.dataset.lane - lane) === next)
    .sort((a, b) => Math.abs(a.dataset.y - y) - Math.abs(b.dataset.y - y))[0];
}

function diagram(svg) {
  const box = svg.parentElement.querySelector(".tip");
  const marks = [...svg.querySelectorAll("[data-mark]")].sort((a, b) => a.dataset.y - b.dataset.y);
  let shown = null;
  const hide = () => {
    shown = null;
    box.hidden = true;
    svg.classList.remove("tracing");
  };
  const show = (mark) => {
    shown = mark;
    for (const part of svg.querySelectorAll("[data-n]")) part.classList.toggle("on", part.dataset.n === mark.dataset.n);
    svg.classList.toggle("tracing", Boolean(mark.dataset.n));
    tipFor(box, mark);
  };
  for (const mark of marks) {
    mark.querySelector("title")?.remove(); // the panel takes its place; aria-label keeps the name
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("blur", hide);
  }
  if (marks.length) marks[0].tabIndex = 0;
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    if (!/^(Arrow|Home|End)/.test(event.key) || !marks.includes(document.activeElement)) return;
    event.preventDefault();
    const next = neighbour(marks, document.activeElement, event.key);
    if (!next) return;
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
    show(next);
  });
  addEventListener("scroll", () => shown && place(box, shown), { passive: true, capture: true });
}

const PLAYING = 20_000, PACE = [150, 700], CALM = 1_000; // ms: a whole history, a step at least and at most, a calm step
const players = new Map(); // svg -> goes to a moment (ns)

// Keeps a mark in sight: below the player, which sticks to the top, and within the box that scrolls sideways.
function bring(mark, box) {
  const at = mark.getBoundingClientRect(), top = box.getBoundingClientRect().bottom;
  if (at.top < top + 20 || at.bottom > innerHeight - 20) scrollBy(0, at.top - (top + innerHeight) / 2);
  const scroller = mark.closest(".scroll"), frame = scroller.getBoundingClientRect();
  if (at.left < frame.left || at.right > frame.right) scroller.scrollLeft += at.left - frame.left - frame.width / 2;
}

function player(box) {
  const svg = box.parentElement.querySelector("[data-spacetime]");
  const moment = (part) => Number(part.dataset.at);
  const timed = [...svg.querySelectorAll("[data-at]")];
  const steps = timed.filter((part) => "mark" in part.dataset).sort((a, b) => moment(a) - moment(b) || a.dataset.y - b.dataset.y);
  const range = box.querySelector("input"), said = box.querySelector(".said"), play = box.querySelector("[data-do=play]");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let place = steps.length, timer = 0;

  const go = (next) => {
    place = Math.min(Math.max(next, 0), steps.length);
    const now = steps[place - 1];
    for (const part of timed) part.classList.toggle("later", !now || moment(part) > moment(now));
    for (const step of steps) step.classList.toggle("now", step === now);
    said.textContent = now ? now.dataset.line : "Before the first step.";
    range.value = place;
    range.setAttribute("aria-valuetext", said.textContent);
    if (now) bring(now, box);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    said.setAttribute("aria-live", "polite");
  };
  const start = () => {
    const pace = calm.matches ? CALM : Math.min(Math.max(PLAYING / steps.length, PACE[0]), PACE[1]);
    go(place < steps.length ? place : 0);
    said.setAttribute("aria-live", "off"); // nobody can listen as fast as it plays
    play.textContent = "Pause";
    timer = setInterval(() => { go(place + 1); if (place === steps.length) stop(); }, pace);
  };
  const jump = () => {
    const stops = steps.flatMap((step, index) => ("stop" in step.dataset ? [index + 1] : []));
    go(stops.find((stop) => stop > place) ?? stops[0]);
  };
  const actions = { back: () => go(place - 1), next: () => go(place === steps.length ? 1 : place + 1), jump };
  box.addEventListener("click", ({ target }) => {
    const name = target.dataset.do, playing = timer;
    if (!name) return;
    stop();
    if (name !== "play") actions[name]();
    else if (!playing) start();
  });
  range.addEventListener("input", () => { stop(); go(Number(range.value)); });
  range.value = place;
  players.set(svg, (at) => { stop(); go(steps.filter((step) => moment(step) <= at).length); });
  box.hidden = false;
}

// Whoever follows a link to an arrow or a mark comes to its moment.
function arrive() {
  const target = document.querySelector(":target");
  const svg = target?.closest("[data-spacetime]");
  if (!svg) return;
  target.scrollIntoView({ block: "center", inline: "nearest" });
  players.get(svg)?.(Number(target.dataset.at));
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-theme-toggle]").forEach(themeToggle);
  document.querySelectorAll("[data-spacetime]").forEach(diagram);
  document.querySelectorAll("[data-player]").forEach(player);
  addEventListener("load", arrive); // after the browser's own scrolling, which would leave it under the player
  addEventListener("hashchange", arrive);
});
