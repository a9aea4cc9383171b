"""A filled home, and the site made of it, once for all tests of the report."""

from pathlib import Path

import pytest

from shared.report.site import build
from shared.tests.report import runs, samples


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
