"""Where servers run and as whom: paths with spaces, root and other users, folders that some cannot reach."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from shared.servers import native
from shared.servers.instance import InstanceRecord, ProcessRecord
from shared.servers.process import UNPRIVILEGED, ProcessId, unprivileged_user
from shared.servers.stack import Stack
from shared.settings import ROOT, default_cache
from shared.tests.servers.lab import Done, Lab, new_lab, one_sentence

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def spaced(lab: Lab) -> Iterator[Lab]:
    """A home and a cache with spaces; downloads are those of the warm cache, start-up caches are yet to be made."""
    cache = lab.home / "my cache"
    cache.mkdir()
    for name in ("jars", "unpacked"):
        (cache / name).symlink_to(lab.settings().cache / name)
    with new_lab(lab.home, "my home ", CACHE=str(cache)) as made:
        yield made


@as_root
def test_postgres_of_root_runs_as_an_unprivileged_user(lab: Lab) -> None:
    lab.stack().up(["postgres"])
    process = lab.process("postgres")
    assert {child.username() for child in (process, *process.children())} == {UNPRIVILEGED}


@as_root
def test_postgres_of_root_runs_below_a_folder_that_only_root_may_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with new_lab(tmp_path) as lab:
        with psycopg.connect(lab.stack().up(["postgres"])["postgres"].url) as connection:
            row = connection.execute("show data_directory").fetchone()
        assert row
        data = Path(row[0])
        assert data.is_relative_to(lab.settings().cache)
        lab.stack().down(clean=True)
        assert not data.parent.exists()


def _as_user(lab: Lab, *words: str, **more: str) -> Done:
    """`lab WORDS` as a user without rights, in an interpreter that this user can reach."""
    packages = (str(lab.parent) for lab in ROOT.glob("experiments/*/lab.toml"))
    path = os.pathsep.join((str(ROOT), *packages, sysconfig.get_path("purelib")))
    env = {**lab.env, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    code = "import sys; sys.argv[0] = 'lab'; from shared.cli import app; app()"
    return subprocess.run(
        [_python(), "-c", code, *words],
        env={**env, **{f"LAB_{name}": value for name, value in more.items()}},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        **unprivileged_user(),
    )


def _python() -> str:
    """An interpreter of our version that everybody may run; skips the test where there is none, or no way to us."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    check = f"import os, sys; sys.exit(not os.access({str(ROOT / 'shared' / 'cli.py')!r}, os.R_OK))"
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        if _runs([python, "-c", check]):
            return python
    pytest.skip(f"neither this interpreter nor the checkout can be reached by {UNPRIVILEGED}")


def _runs(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, cwd="/", check=False, **unprivileged_user()).returncode == 0
    except OSError:
        return False


@as_root
@pytest.mark.slow
def test_normal_user_starts_and_stops_servers_on_a_warm_cache_that_is_not_theirs(lab: Lab) -> None:
    names = ("postgres", "kafka", "connect")
    with new_lab() as warming:  # by root, into root's cache
        warming.stack().up(names)
    shutil.chown(lab.home, UNPRIVILEGED)
    up = _as_user(lab, "up", *names, CACHE=str(default_cache()))
    assert up.returncode == 0, up.stderr
    assert {lab.process(name).username() for name in names} == {UNPRIVILEGED}
    assert _as_user(lab, "down", CACHE=str(default_cache())).returncode == 0
    assert lab.left() == []


@as_root
def test_home_of_somebody_else_is_one_sentence(lab: Lab) -> None:
    done = _as_user(lab, "up", "postgres")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {lab.home} cannot be used (Permission denied); set LAB_HOME to a folder that you may write to.\n"
    )


@as_root
def test_down_names_what_it_could_not_stop_and_exits_1(lab: Lab) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as of_root:
        started = ProcessId.of(of_root.pid).started
        process = ProcessRecord(pid=of_root.pid, started=started, log=lab.folder("kafka") / "node-1.log")
        record = InstanceRecord(server="kafka", provider="native", url="x", ports={}, ready=True, processes=(process,))
        record.write(lab.folder("kafka"))
        for path in (lab.home, *lab.home.rglob("*")):
            shutil.chown(path, UNPRIVILEGED)
        assert one_sentence(_as_user(lab, "down")).startswith(f"kafka: process {of_root.pid} runs on")
        assert (of_root.poll(), lab.record("kafka")) == (None, record)
        of_root.kill()


def _caches(lab: Lab) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in (lab.settings().cache / "aot").glob("*.aot"))


@pytest.mark.timeout(900)  # of a busy machine, as below
def test_start_up_cache_that_could_not_be_made_is_said_and_made_at_the_next_stop(
    spaced: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    stack = Stack(spaced.settings(), tell=said.append)
    with monkeypatch.context() as patch:
        patch.setattr(native, "RECORDING", 0.0)  # as on a machine where the stop takes longer than anybody waits
        stack.up(["kafka"])
        stack.down()
    assert (_caches(spaced), said[-1]) == (
        [],
        "kafka: its start-up cache is yet to be made, after its next stop in order",
    )
    stack.up(["kafka"])
    stack.down()
    assert (_caches(spaced), sum("yet to be made" in line for line in said)) == (["kafka"], 1)


@pytest.mark.slow
@pytest.mark.timeout(900)  # of a busy machine: what starts and stops here records, and so takes its time
def test_servers_start_in_paths_with_spaces_and_the_second_start_uses_the_caches_of_the_first(spaced: Lab) -> None:
    assert set(spaced.stack().up(["postgres", "kafka", "connect"])) == {"postgres", "kafka", "connect"}
    first = spaced.process("kafka").cmdline()
    spaced.stack().down()
    assert _caches(spaced) == ["connect", "kafka"]
    spaced.stack().up(["kafka"])
    second = spaced.process("kafka").cmdline()
    assert "-XX:AOTMode=record" in first
    assert [word for word in second if word.startswith(f"-XX:AOTCache={spaced.settings().cache}/aot/kafka-")]
    assert list((spaced.settings().cache / "aot").glob("*.half")) == []
    assert psutil.pid_exists(spaced.process("kafka").pid)
