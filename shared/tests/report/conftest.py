"""A filled home, and the site made of it, once for all tests of the report; a browser to see it in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from shared.report.site import build
from shared.tests.report import runs, samples
from shared.tests.report.browser import ARGUMENTS, CHROMIUM


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site built from every kind of run."""
    folder = tmp_path_factory.mktemp("report")
    return build(runs.fill(folder / "home"), samples.root(folder / "root")).parent


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return samples.root(tmp_path / "root")


# For one module: as long as Playwright runs, its event loop does, and no test elsewhere could have one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(reduced_motion="reduce") as context:
        yield context.new_page()
