"use strict";
// Pages are whole without this file: it adds the theme toggle, and tooltips and arrow keys to the diagrams.

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

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-theme-toggle]").forEach(themeToggle);
  document.querySelectorAll("[data-spacetime]").forEach(diagram);
});
