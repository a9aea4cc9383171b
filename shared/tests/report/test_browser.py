"""The site in a real browser, from file://, as its readers have it."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser, Page

from shared.tests.report.browser import DUAL, IN_VIEW, RELAY, needs_chromium

UNNAMED = """[...document.querySelectorAll('svg:not([aria-hidden])')].filter((svg) => {
  const ids = (svg.getAttribute('aria-labelledby') ?? '').split(' ').filter(Boolean);
  return !ids.some((id) => document.getElementById(id)?.textContent.trim());
}).length"""
OVERLAPS = """[...document.querySelectorAll('svg[data-spacetime]')].flatMap((svg) => {
  const texts = [...svg.querySelectorAll('.mark text, .fault text, .gone text, .name, .role, .tick')];
  const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([one, a], place) => boxes.slice(place + 1)
    .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
    .map(([two]) => `${one} / ${two}`));
})"""

pytestmark = needs_chromium


def names(site: Path) -> list[str]:
    return sorted(path.name for path in site.glob("*.html"))


def test_no_page_has_errors_or_reaches_the_network(site: Path, page: Page) -> None:
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else trouble.append(request.url)
    )
    for name in names(site):
        page.goto((site / name).as_uri())
    assert trouble == []


def test_no_page_scrolls_sideways_on_a_telephone(site: Path, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    wide = {}
    for name in names(site):
        page.goto((site / name).as_uri())
        wide[name] = page.evaluate("document.documentElement.scrollWidth")
    assert set(wide.values()) == {390}, wide


def test_every_internal_link_leads_somewhere(site: Path, page: Page) -> None:
    links: set[str] = set()
    anchors: set[str] = set()
    for name in names(site):
        page.goto((site / name).as_uri())
        links |= set(page.eval_on_selector_all("a[href]", "all => all.map((a) => a.href)"))
        anchors |= {f"{name}#{id}" for id in page.eval_on_selector_all("[id]", "all => all.map((e) => e.id)")}
    inner = [urlsplit(link) for link in links if link.startswith("file:")]
    assert [link for link in inner if not Path(unquote(link.path)).is_file()] == []
    wanted = {f"{Path(link.path).name}#{unquote(link.fragment)}" for link in inner if link.fragment}
    assert wanted - anchors == set()


def test_every_drawing_has_a_name(site: Path, page: Page) -> None:
    for name in names(site):
        page.goto((site / name).as_uri())
        assert page.evaluate(UNNAMED) == 0, name
    page.goto((site / RELAY).as_uri())
    assert page.get_by_role("group", name="Space-time diagram of relay killed after publish").count() == 1


def test_no_labels_of_a_diagram_overlap(site: Path, page: Page) -> None:
    for name in names(site):
        page.goto((site / name).as_uri())
        assert page.evaluate(OVERLAPS) == [], name


def test_pointing_at_a_mark_shows_its_event(site: Path, page: Page) -> None:
    page.goto((site / RELAY).as_uri())
    page.locator(".mark.odd").first.hover()
    tip = page.locator(".tip:visible")
    assert "e-000148" in tip.inner_text()
    assert "duplicate delivery" in tip.inner_text()
    page.mouse.move(0, 0)
    assert page.locator(".tip:visible").count() == 0


def test_a_claim_of_the_wrong_way_leads_to_the_arrow_of_its_event(site: Path, page: Page) -> None:
    page.goto((site / DUAL).as_uri())
    page.get_by_role("link", name="See it in the diagram").first.click()
    arrow = page.locator("path.arrow.lost:target")
    assert arrow.count() == 1
    assert arrow.evaluate(IN_VIEW)


def test_a_failed_claim_on_a_card_leads_to_the_mark_or_arrow_on_the_page_of_its_run(site: Path, page: Page) -> None:
    page.goto((site / "index.html").as_uri())
    page.locator(".card", has_text="Kill the relay").get_by_role("link", name="See it").first.click()
    assert page.url.startswith((site / RELAY).as_uri())
    assert page.locator(".diagram :target").evaluate(IN_VIEW)


def test_the_keyboard_reaches_every_mark_and_shows_its_event(site: Path, page: Page) -> None:
    page.goto((site / RELAY).as_uri())
    page.locator("[data-mark][tabindex='0']").focus()
    first = page.locator(".tip:visible").inner_text()
    page.keyboard.press("ArrowDown")
    assert page.locator(".tip:visible").inner_text() != first
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.lane") == "1"
    page.keyboard.press("Escape")
    assert page.locator(".tip:visible").count() == 0


def test_the_theme_follows_the_system_until_it_is_chosen(site: Path, page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto((site / "index.html").as_uri())
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Colour theme").click()
    assert page.evaluate(background) != dark
    page.get_by_role("button", name="Colour theme: light").click()
    assert page.evaluate(background) == dark


def test_the_pages_are_whole_without_scripts(site: Path, browser: Browser) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((site / RELAY).as_uri())
        assert page.locator("svg.spacetime .mark").first.is_visible()
        assert page.locator("svg.bars .bar").first.is_visible()
