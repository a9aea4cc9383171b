"""Packages of npm: fetched once, by npm, and checked. They are made here, so that no registry is asked."""

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import ArtifactError, ChecksumMismatch, NotAvailable
from shared.servers import npm
from shared.servers.npm import Package
from shared.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load({"LAB_CACHE": str(tmp_path / "cache")})


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A package in a folder, two files of three, under the checksum of what npm packs."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm on this machine")
    folder = tmp_path / "package"
    (folder / "sql").mkdir(parents=True)
    for name in ("first", "second", "third"):
        (folder / "sql" / f"{name}.sql").write_text(f"select '{name}';")
    (folder / "package.json").write_text(json.dumps({"name": "lab-test", "version": "1.0.0"}))
    subprocess.run(["npm", "pack", folder], cwd=tmp_path, capture_output=True, check=True)
    sha256 = hashlib.sha256((tmp_path / "lab-test-1.0.0.tgz").read_bytes()).hexdigest()
    return Package(str(folder), sha256, ("sql/second.sql", "sql/first.sql"))


def cached(settings: Settings) -> list[str]:
    return [path.name for path in settings.cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_the_files_come_in_the_order_of_the_lock(package: Package, settings: Settings) -> None:
    assert npm.read(package, settings) == b"select 'second';\nselect 'first';"
    assert cached(settings) == ["package.tgz"]


def test_what_is_in_the_cache_needs_no_npm(
    package: Package, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = npm.read(package, settings)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert npm.read(package, settings) == before


def test_without_npm_it_is_not_to_be_had(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotAvailable, match="there is no npm on this machine"):
        npm.read(npm.read_lock("message-db"), settings)


def test_without_a_network_it_is_not_to_be_had(
    package: Package, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1")
    monkeypatch.setenv("npm_config_cache", str(settings.cache / "empty"))
    with pytest.raises(NotAvailable, match="npm could not fetch it"):
        npm.read(replace(package, spec="@eventide/message-db@1.3.1"), settings)
    assert "package.tgz" not in cached(settings)


def test_another_file_than_the_lock_names_is_thrown_away(package: Package, settings: Settings) -> None:
    with pytest.raises(ChecksumMismatch, match="thrown away"):
        npm.read(replace(package, sha256="0" * 64), settings)
    assert cached(settings) == []


def test_a_cache_that_cannot_be_used_is_a_clear_error(package: Package, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotAvailable, match="set LAB_CACHE"):
        npm.read(package, Settings.load({"LAB_CACHE": str(tmp_path / "file")}))


def test_a_lock_without_a_package_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "npm.lock").write_text("# nothing\n")
    with pytest.raises(ArtifactError, match="name@version sha256"):
        npm.read_lock("mine", tmp_path)
