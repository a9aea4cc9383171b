"""The player of a diagram in a real browser: it plays, steps and jumps, by keys too, and says each step in words."""

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from shared.tests.report.browser import DUAL, IN_VIEW, RELAY, needs_chromium

pytestmark = needs_chromium


@pytest.fixture
def player(site: Path, page: Page) -> Locator:
    """The player of the run in which a relay is killed; its clock stands until a test lets it run."""
    page.clock.install(time=0)
    page.goto((site / RELAY).as_uri())
    page.clock.pause_at(3_600)
    return page.locator("[data-player]")


def hidden(page: Page) -> int:
    """How much of the diagram has not happened yet."""
    return page.locator(".spacetime .later").count()


def press(player: Locator, name: str) -> None:
    player.get_by_role("button", name=name, exact=True).click()


def said(player: Locator) -> str:
    return player.get_by_role("status").inner_text().replace("\N{NO-BREAK SPACE}", " ")


def test_at_first_the_whole_picture_is_shown(player: Locator, page: Page) -> None:
    slider = player.get_by_role("slider")
    assert slider.input_value() == slider.get_attribute("max")
    assert hidden(page) == 0


def test_it_plays_from_the_beginning_to_the_end_and_stops(player: Locator, page: Page) -> None:
    press(player, "Play")
    assert hidden(page) == page.locator(".spacetime [data-at]").count()
    page.clock.run_for(90_000)
    assert hidden(page) == 0
    assert player.get_by_role("button", name="Play", exact=True).count() == 1


def test_it_pauses_where_it_is(player: Locator, page: Page) -> None:
    press(player, "Play")
    page.clock.run_for(3_500)
    press(player, "Pause")
    place = player.get_by_role("slider").input_value()
    page.clock.run_for(30_000)
    assert 0 < int(place) < int(player.get_by_role("slider").get_attribute("max") or 0)
    assert player.get_by_role("slider").input_value() == place


def test_a_step_shows_one_act_more_and_says_it(player: Locator, page: Page) -> None:
    press(player, "Step")
    first = said(player)
    assert "order-service wrote event 1" in first
    press(player, "Step")
    assert said(player) != first
    press(player, "Back")
    assert said(player) == first
    assert page.locator(".mark.now").count() == 1


def test_it_jumps_from_a_fault_to_the_anomalies_that_follow_and_round_again(player: Locator, page: Page) -> None:
    press(player, "Next fault or anomaly")
    assert "relay was killed after publish" in said(player)
    assert page.locator(".fault.now").evaluate(IN_VIEW)
    for _ in range(3):
        press(player, "Next fault or anomaly")
        assert said(player).endswith("duplicate delivery: delivered before")
        assert page.locator(".mark.odd.now").evaluate(IN_VIEW)
    press(player, "Next fault or anomaly")
    assert "relay was killed after publish" in said(player)


def test_the_keyboard_alone_reaches_and_drives_it(player: Locator, page: Page) -> None:
    player.get_by_role("button", name="Play", exact=True).focus()
    for _ in range(4):
        page.keyboard.press("Tab")
    slider = player.get_by_role("slider")
    expect(slider).to_be_focused()
    page.keyboard.press("Home")
    assert said(player) == "Before the first step."
    page.keyboard.press("ArrowRight")
    assert (slider.input_value(), slider.get_attribute("aria-valuetext")) == ("1", player.locator(".said").inner_text())
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert "relay was killed" in said(player)


def test_a_link_to_an_anomaly_leads_to_its_moment(site: Path, page: Page) -> None:
    page.goto((site / DUAL).as_uri())
    page.get_by_role("link", name="See it in the diagram").first.click()
    told = page.locator("[data-player]").first.get_by_role("status")
    expect(told).to_contain_text("lost: committed, never delivered")
    assert page.locator(".arrow.lost:target:not(.later)").count() == 1


@pytest.mark.parametrize("width", [400, 1200])
def test_whoever_comes_from_a_card_finds_the_arrow_below_the_player(site: Path, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((site / "index.html").as_uri())
    page.locator(".card", has_text="without an outbox").get_by_role("link", name="See it").first.click()
    page.wait_for_load_state()
    expect(page.locator("[data-player]").first.get_by_role("status")).to_contain_text("lost")
    arrow, box = page.locator(".arrow.lost:target").bounding_box(), page.locator("[data-player]").first.bounding_box()
    assert arrow
    assert box
    assert box["y"] + box["height"] <= arrow["y"] < 800


def test_whoever_wants_less_motion_gets_slower_steps_and_no_fading(player: Locator, page: Page) -> None:
    assert (
        page.locator(".spacetime .mark").first.evaluate("(mark) => getComputedStyle(mark).transitionDuration") == "0s"
    )
    press(player, "Play")
    page.clock.run_for(999)
    assert player.get_by_role("slider").input_value() == "0"
    page.clock.run_for(2)
    assert player.get_by_role("slider").input_value() == "1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen_in_light_and_dark(site: Path, page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto((site / RELAY).as_uri())
    press(page.locator("[data-player]"), "Next fault or anomaly")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    outside = (
        "(box) => [...box.querySelectorAll('*')].filter((part) => part.getBoundingClientRect().right > 400).length"
    )
    assert page.locator("[data-player]").evaluate(outside) == 0


def test_without_scripts_there_is_no_player(site: Path, page: Page) -> None:
    with page.context.browser.new_context(java_script_enabled=False) as context:  # type: ignore[union-attr]
        plain = context.new_page()
        plain.goto((site / RELAY).as_uri())
        assert not plain.locator("[data-player]").is_visible()
        assert plain.locator(".spacetime .later").count() == 0
