"""The `lab` command: what scripts may rely on, and how it talks to people."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from shared.cli import cli
from shared.errors import ConfigurationError
from shared.labs import FOLDER, labs, scripts
from shared.servers.catalogue import SERVERS
from shared.tests.servers.lab import Lab, new_lab, one_sentence

COMMANDS = sorted(get_command(cli).commands)  # type: ignore[attr-defined]
PEOPLE_SAY = (
    *("list", "run", "demo", "report", "evidence", "coverage", "mutate"),
    *("up", "down", "status", "logs", "doctor", "clean"),
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A home in which nothing has run yet."""
    with new_lab() as made:
        yield made


def test_help_shows_what_to_type_first(lab: Lab) -> None:
    done = lab("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("lab demo", "lab list", "lab run outbox-pattern/01", "lab up postgres kafka", "lab doctor"):
        assert words in done.stdout


def test_lab_alone_shows_the_help() -> None:
    done = CliRunner().invoke(cli, [])
    assert done.exit_code == 2
    assert "lab demo" in done.output


def test_every_promised_command_exists() -> None:
    assert set(PEOPLE_SAY) <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_says_what_it_does_and_each_option_what_it_means(command: str) -> None:
    done = CliRunner().invoke(cli, [command, "--help"], terminal_width=200)
    assert done.exit_code == 0
    usage, _, rest = done.output.partition("\n")
    assert f" {command} " in usage
    assert len(rest.strip().split("\n")[0]) > 20
    # An option is a line with two columns: the name, and what it means.
    options = [line for line in rest.split("\n") if line.lstrip().startswith("--")]
    assert all(len(line.split("  ")) > 1 for line in options)


def test_help_of_servers_lists_them_all() -> None:
    for command in ("up", "down", "logs"):
        text = " ".join(CliRunner().invoke(cli, [command, "--help"], terminal_width=200).output.split())
        assert ", ".join(SERVERS) in text


def test_list_as_json_describes_every_lab_and_experiment(lab: Lab) -> None:
    found = json.loads(lab("list", "--json").stdout)
    assert [one["lab"] for one in found] == [one.name for one in labs()]
    assert {"lab", "title", "question", "section", "servers", "experiments"} == set(found[0])
    experiments = [experiment for one in found for experiment in one["experiments"]]
    assert {frozenset(experiment) for experiment in experiments} == {
        frozenset({"name", "title", "question", "servers", "last_verdict"})
    }
    assert {experiment["last_verdict"] for experiment in experiments} == {None}


def test_list_names_the_next_command(lab: Lab) -> None:
    done = CliRunner(env=lab.env).invoke(cli, ["list"])
    assert "not run here yet" in done.stdout
    assert done.stdout.endswith("run one with: lab run LAB/NUMBER\n")


def test_status_as_json_has_one_entry_for_every_server(lab: Lab) -> None:
    narrow = Lab(lab.home, {**lab.env, "COLUMNS": "20", "FORCE_COLOR": "1"})  # neither may reach what scripts read
    done = narrow("status", "--json")
    found = json.loads(done.stdout)
    assert [one["server"] for one in found] == list(SERVERS)
    assert {"server", "state", "provider", "url", "version", "seconds", "rss_mb", "detail"} == set(found[0])
    assert {one["state"] for one in found} == {"stopped"}
    assert done.returncode == 0


def test_coverage_as_json_counts_the_topics_that_a_claim_demonstrates(lab: Lab) -> None:
    found = json.loads(lab("coverage", "--json").stdout)
    assert set(found) == {"covered", "total", "topics"}
    assert found["total"] == len(found["topics"]) == 265
    assert found["covered"] == sum(bool(claims) for claims in found["topics"].values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nonsense"), "There is no lab 'nonsense'. There are: "),
        (("logs", "kafka"), "kafka has no log here: it was never started"),
    ],
)
def test_error_is_one_sentence_on_stderr_and_exit_1(lab: Lab, words: tuple[str, ...], said: str) -> None:
    done = lab(*words)
    assert one_sentence(done).startswith(said)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "--lab", "nonsense"), "There is no lab 'nonsense'. There are: "),
        (("run", "outbox-pattern/99"), "outbox-pattern has no experiment '99'. It has: 01_"),
    ],
)
def test_wrong_name_lists_the_right_ones(lab: Lab, words: tuple[str, ...], said: str) -> None:
    done = CliRunner(env=lab.env).invoke(cli, words)
    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception).startswith(said)


@pytest.mark.parametrize("number", ["1", "01", "001", "01_dual_write", "01_d", "01_dual_write.py"])
def test_number_or_beginning_of_a_name_is_one_experiment(number: str) -> None:
    assert [path.name for path in scripts([f"outbox-pattern/{number}"])] == ["01_dual_write.py"]
    assert [path.name[:2] for path in scripts(["outbox/10", "experiments/outbox-pattern/12/"])] == ["10", "12"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("outbox-pattern/0", "outbox-pattern has no experiment '0'. It has: 01_dual_write, "),
        ("outbox-pattern/0_", "outbox-pattern has no experiment '0_'. It has: 01_dual_write, "),
        ("outbox-pattern/1_", "outbox-pattern has no experiment '1_'. It has: 01_dual_write, "),
        ("outbox-pattern/١", "outbox-pattern has no experiment '١'. It has: 01_dual_write, "),
        ("", "There is no lab ''. There are: event-sourcing, "),
    ],
)
def test_target_that_is_none_or_several_lists_the_candidates(target: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        list(scripts([target]))
    assert str(caught.value).startswith(said)


def test_beginning_that_two_names_have_lists_these_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("saga-pattern", "saga-two", "other"):
        shutil.copytree(FOLDER / "saga-pattern", tmp_path / name, ignore=shutil.ignore_patterns("*.py"))
    for name in ("01_kill_it.py", "01_kill_me.py"):
        (tmp_path / "saga-two" / name).touch()
    monkeypatch.setattr("shared.labs.FOLDER", tmp_path)
    with pytest.raises(ConfigurationError, match=r"^'saga' may be: saga-pattern, saga-two\.$"):
        list(scripts(["saga"]))
    with pytest.raises(ConfigurationError, match=r"^saga-two/1 may be: 01_kill_it, 01_kill_me\.$"):
        list(scripts(["saga-two/1"]))


@pytest.mark.parametrize(
    "words", [("run",), ("nonsense",), ("up", "--nonsense"), ("logs",), ("logs", "kafka", "-n", "-1")]
)
def test_wrong_usage_is_explained_and_is_exit_2(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert "Usage: " in done.stderr
    assert "Error: " in done.stderr


def test_doctor_says_what_is_missing_and_what_is_there(lab: Lab) -> None:
    done = lab("doctor")
    assert "a Java runtime" in done.stdout
    assert f"home {lab.home}" in done.stdout
    assert done.returncode == ("✘" in done.stdout.partition("optional")[0])
