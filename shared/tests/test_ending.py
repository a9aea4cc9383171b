"""How commands end on bad days: a full disk, a place that cannot be written, an output that cannot say everything."""

import json
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from shared import ending
from shared.commands import house
from shared.settings import ROOT, Settings
from shared.tests.servers.lab import COMMAND, Done, Lab, new_lab, one_sentence

SCRIPT = '''"""Does it — end?"""

from shared.experiment import Experiment, Run

experiment = Experiment(title="A title…")

def say() -> None:
    print("✔ — é")

@experiment.run
def main(run: Run) -> None:
    with run.step("a step → the next"):
        run.worker("teller", say).wait()
        run.claim("it holds", True, fact="1 × 1 — “é” µs")
    run.figure("delay", 1.0, "µs")

if __name__ == "__main__":
    experiment.main()
'''
# How a terminal that has no ✔ is met: chosen for Python, or by a locale that Python may not change.
OUTPUTS = {
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "ISO-8859-1": {"PYTHONIOENCODING": "iso-8859-1"},
    "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
outputs = pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A home in which one experiment of one line has run."""
    with new_lab() as made:
        (made.home / "a-lab").mkdir()
        script(made).write_text(SCRIPT)
        assert made("run", str(script(made))).returncode == 0
        yield made


def script(lab: Lab) -> Path:
    return lab.home / "a-lab" / "01_question.py"


def run(lab: Lab, argv: list[str], **more: str) -> Done:
    env = {**lab.env, **more}
    return subprocess.run(argv, env=env, capture_output=True, encoding="latin-1", timeout=200, check=False)


@pytest.mark.parametrize("words", [("list",), ("status",), ("coverage",), ("report",), ("--help",), ("run", "--help")])
def test_command_says_it_plainly_where_the_output_has_no_such_marks(lab: Lab, words: tuple[str, ...]) -> None:
    done = run(lab, [COMMAND, *words], **OUTPUTS["ASCII"])
    assert (done.returncode, done.stderr) == (0, "")


@outputs
def test_experiment_says_it_plainly_and_its_record_is_whole(lab: Lab, output: Mapping[str, str]) -> None:
    done = run(lab, [COMMAND, "run", str(script(lab))], **output)
    assert (done.returncode, done.stderr) == (0, "")
    assert "+ it holds - 1 " in done.stdout
    record = json.loads(run(lab, [sys.executable, str(script(lab)), "--json"], **output).stdout)
    assert record["claims"][0]["fact"] == "1 × 1 — “é” µs"
    [log] = sorted(lab.home.glob("runs/*/*/*/teller.log"))[-1:]
    assert log.read_text(encoding="utf-8") == "✔ — é\n"


def test_error_is_one_sentence_in_ascii_too(lab: Lab) -> None:
    done = run(lab, [COMMAND, "run", "naïve—lab"], PYTHONIOENCODING="ascii")
    assert one_sentence(done).startswith("There is no lab 'naive-lab'. There are: ")


def test_error_handler_that_the_user_has_chosen_is_kept(lab: Lab) -> None:
    assert "&#8212; not run here yet" in run(lab, [COMMAND, "list"], PYTHONIOENCODING="ascii:xmlcharrefreplace").stdout


@outputs
def test_terminal_without_the_marks_is_spared_them(lab: Lab, output: Mapping[str, str]) -> None:
    ours, theirs = pty.openpty()
    argv, env = [COMMAND, "run", str(script(lab))], {**lab.env, **output, "TERM": "xterm"}
    with subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert (process.returncode, b"Traceback" in said) == (0, False)
    assert b"+" in said


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # its other end is closed
        return b""


@pytest.mark.parametrize("words", [("list",), ("status", "--json"), ("--help",)])
def test_output_that_cannot_be_written_is_one_sentence(lab: Lab, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, *words], env=lab.env, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert one_sentence(done) == "the output: No space left on device."


def test_reader_who_has_enough_is_no_error(lab: Lab) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([COMMAND, "list"], env=lab.env, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""


@pytest.mark.parametrize("words", [("report",), ("run",)])
def test_file_that_may_not_grow_is_one_sentence(lab: Lab, words: tuple[str, ...]) -> None:
    targets = [str(script(lab))] if words == ("run",) else []
    limited = ["sh", "-c", 'ulimit -f 4 && exec "$@"', "sh"]  # blocks of 512 or 1024 bytes
    done = run(lab, [*limited, COMMAND, *words, *targets])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: ")
    assert "File too large" in done.stderr


@pytest.mark.parametrize(
    ("words", "home"),
    [
        *((("report",), home) for home in ("file", "file/below", "/proc/no-such")),
        *((words, "file/below") for words in (("run",), ("up", "postgres"), ("down",))),
    ],
)
def test_home_that_cannot_be_made_is_one_sentence_that_names_it(lab: Lab, words: tuple[str, ...], home: str) -> None:
    (lab.home / "file").touch()
    targets = [str(script(lab))] if words == ("run",) else []
    said = run(lab, [COMMAND, *words, *targets], LAB_HOME=str(lab.home / home)).stderr.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: {lab.home / home}")
    assert said[0].endswith("set LAB_HOME to a folder that you may write to.")


def _mounts() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


mounted = pytest.mark.skipif(
    sys.platform != "linux" or not _mounts(), reason="only Linux, and only root, mounts for one process alone"
)


def _among(mount: str, *words: str) -> list[str]:
    """`lab WORDS` where something is mounted that nobody else sees."""
    return ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", COMMAND, *words]


@mounted
@pytest.mark.parametrize(
    ("words", "place"),
    [(("report",), ".lab/report"), (("evidence", "--from-last"), "docs"), (("up", "postgres"), ".lab")],
)
def test_read_only_checkout_is_one_sentence(lab: Lab, words: tuple[str, ...], place: str) -> None:
    mount = f"mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT}"
    (ROOT / ".lab").mkdir(exist_ok=True)
    done = run(lab, _among(mount, *words), LAB_HOME="")
    assert one_sentence(done).startswith(str(ROOT / place))
    assert "Read-only file system" in done.stderr


@mounted
@pytest.mark.parametrize("words", [("report",), ("up", "postgres")])
def test_full_disk_is_one_sentence_that_names_the_variable_for_another(lab: Lab, words: tuple[str, ...]) -> None:
    full = f"mount -t tmpfs -o size=100k tmpfs {lab.home}; head -c 1m /dev/zero > {lab.home}/fill 2> /dev/null"
    done = run(lab, _among(f"{{ {full} || true; }}", *words))
    assert "No space left on device" in one_sentence(done)
    assert "set LAB_HOME to a folder on another disk." in done.stderr


def test_checks_of_a_checkout_that_cannot_be_written_keep_their_caches_elsewhere(tmp_path: Path) -> None:
    argv = [words for words in house._checks(tmp_path).values() if words[0] in ("ruff", "mypy")]
    assert len(argv) > 2
    assert [words for words in argv if not any(word.startswith(str(tmp_path)) for word in words)] == []


def test_doctor_does_not_tick_a_place_that_it_cannot_write(lab: Lab) -> None:
    (lab.home / "file").touch()
    done = lab("doctor", CACHE=str(lab.home / "file" / "below"), HOME=str(lab.home / "file"))
    assert done.returncode == 1
    assert f"✘ the cache can be written: {lab.home / 'file'}" in done.stdout
    assert f"✘ the home can be written: {lab.home / 'file'}" in done.stdout
    assert "✔ the cache can be written" in lab("doctor").stdout


def test_error_of_a_server_on_a_full_disk_names_the_disk_and_another_one_is_a_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = psycopg.OperationalError("server closed the connection unexpectedly")
    monkeypatch.setattr(ending, "ROOM", 0)
    assert ending.of_the_place(gone) is None
    monkeypatch.setattr(ending, "ROOM", 2**80)
    said = ending.of_the_place(gone)
    assert said
    assert said.startswith("OperationalError: server closed the connection unexpectedly Only ")
    assert f"under {Settings.load().home}" in said


def test_missing_file_is_a_bug_and_no_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "not yet"))
    assert ending.of_the_place(FileNotFoundError(2, "No such file or directory", "/somewhere")) is None
    assert ending.of_the_place(ConnectionRefusedError(111, "Connection refused")) is None
    assert ending.of_the_place(FileNotFoundError(2, "No such file or directory")) is None  # of a socket


def test_no_folder_for_temporary_files_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [])
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.mkdtemp()
    assert (ending.of_the_place(caught.value) or "").startswith("No usable temporary directory found in ")


def test_lab_s_own_command_without_its_database_is_one_sentence(lab: Lab) -> None:
    for address in ("postgresql://postgres@127.0.0.1:1/x", "no address at all"):
        assert one_sentence(lab("outbox", "parked", "--dsn", address)).startswith("postgres does not answer: ")
