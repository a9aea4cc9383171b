"""The run record comes back as it was written, is there whole or not at all, and says when it cannot be used."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shared.errors import ConfigurationError
from shared.record import Claim, Environment, Figure, Finding, HistorySummary, NotPossible, RunRecord, covered, latest
from shared.wait import until
from shared.worker import Worker

BIG = 1_000_000  # characters: more than one write takes


def environment() -> Environment:
    return Environment(
        python="3.11.7",
        platform="Linux",
        cpus=2,
        memory_gb=24.0,
        load=0.5,
        fsync_ms=1.25,
        commit="abc123+",
        libraries={"psycopg": "3.3"},
        servers={"postgres": "18.4 (native)"},
    )


def made(experiment: str = "01_first", lab: str = "a-lab", **more: Any) -> RunRecord:
    """A record with one claim that held."""
    fields: dict[str, Any] = {"claims": (Claim(text="it holds", holds=True, topics=("I.1/a/b",)),), **more}
    return RunRecord(
        lab=lab,
        experiment=experiment,
        title="A title",
        question="Why?",
        topics=("I.1/a/b",),
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        seconds=1.5,
        scale="demo",
        seed=7,
        environment=environment(),
        **fields,
    )


def full() -> RunRecord:
    """A record with something in every field."""
    finding = Finding(kind="lost", value="e1", key="k", process="p", at=1, detail="d")
    summary = HistorySummary(name="h", path="h", operations=9, faults=1, counts={"lost": 1}, findings=(finding,))
    return made(
        parameters={"batch": 10, "rate": 0.5, "way": "outbox", "quick": True},
        figures=(
            Figure(name="latency", value=1.5, unit="ms", n=3, p50=1.5, p95=2, p99=3, low=1, high=3, x=4, x_label="n"),
        ),
        histories=(summary,),
        not_possible=(NotPossible(step="kill", reason="yours"),),
        error="LabError: oh",
    )


def write_over_and_over(folder: Path) -> None:
    """Write big records until killed."""
    while True:
        made(error="x" * BIG).write(folder)


@pytest.mark.parametrize("record", [made(), full()], ids=["small", "full"])
def test_a_record_comes_back_as_it_was_written(record: RunRecord, tmp_path: Path) -> None:
    assert RunRecord.read(record.write(tmp_path / "deep" / "folder")) == record


def test_types_of_parameters_survive(tmp_path: Path) -> None:
    parameters = RunRecord.read(full().write(tmp_path)).parameters
    assert {name: type(value) for name, value in parameters.items()} == {
        "batch": int, "rate": float, "way": str, "quick": bool,
    }  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Figure(name="f", value=value, unit="ms")
    with pytest.raises(ValidationError, match="finite"):
        made(parameters={"rate": value})


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        made().seed = 8


@pytest.mark.parametrize("text", ["", "{", "[]", '{"lab": "a"}', "\x00"])
def test_what_is_no_record_is_a_clear_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"run\.json is not a run record"):
        RunRecord.read(path)


def test_an_unknown_field_is_an_error(tmp_path: Path) -> None:
    path = made().write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    with pytest.raises(ConfigurationError, match="colour"):
        RunRecord.read(path)


def test_a_record_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a run record: .*No such file"):
        RunRecord.read(tmp_path / "run.json")


@pytest.mark.fault
def test_a_writer_killed_at_any_moment_leaves_a_whole_record_or_none(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.json"
    with Worker("writer", tmp_path / "log", write_over_and_over, path.parent) as writer:
        until("a first record", path.exists)
        for _ in range(50):
            assert RunRecord.read(path).seed == 7
        writer.kill()
    assert len(RunRecord.read(path).error) == BIG


def test_a_half_written_record_is_not_seen(tmp_path: Path) -> None:
    folder = tmp_path / "a-lab" / "01_first" / "20260101T000000"
    folder.mkdir(parents=True)
    (folder / ".run.json.half").write_text('{"lab"')
    assert list(latest(tmp_path)) == []


def test_latest_is_the_newest_of_every_experiment_in_order(tmp_path: Path) -> None:
    for lab, experiment, time, seed in (
        ("b-lab", "01_x", "20260103", 1), ("a-lab", "02_y", "20260102", 2),
        ("a-lab", "01_x", "20260101", 3), ("a-lab", "01_x", "20260102", 4),
    ):  # fmt: skip
        made(experiment, lab).model_copy(update={"seed": seed}).write(tmp_path / lab / experiment / time)
    assert [(record.lab, record.experiment, record.seed) for _, record in latest(tmp_path)] == [
        ("a-lab", "01_x", 4), ("a-lab", "02_y", 2), ("b-lab", "01_x", 1),
    ]  # fmt: skip


def test_a_newer_run_without_a_record_does_not_hide_the_last_one(tmp_path: Path) -> None:
    made().write(tmp_path / "a-lab" / "01_first" / "1")
    (tmp_path / "a-lab" / "01_first" / "2").mkdir()
    [(folder, record)] = latest(tmp_path)
    assert (folder.name, record) == ("1", made())


def test_covered_counts_only_claims_that_held() -> None:
    held, failed = (Claim(text=str(holds), holds=holds, topics=("t1", f"only {holds}")) for holds in (True, False))
    assert covered([made(claims=(held, failed)), made("02_x", claims=(held,))]) == {
        "t1": ["a-lab/01_first: True", "a-lab/02_x: True"],
        "only True": ["a-lab/01_first: True", "a-lab/02_x: True"],
    }


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, "holds"),
        ({"claims": ()}, "fails"),
        ({"claims": (Claim(text="a", holds=True), Claim(text="b", holds=False))}, "fails"),
        ({"error": "LabError: oh"}, "fails"),
        ({"claims": (), "not_possible": (NotPossible(step="s", reason="r"),)}, "not possible here"),
        ({"claims": (), "not_possible": (NotPossible(step="s", reason="r"),), "error": "e"}, "fails"),
        ({"claims": (Claim(text="b", holds=False),), "not_possible": (NotPossible(step="s", reason="r"),)}, "fails"),
    ],
)
def test_the_verdict(fields: dict[str, Any], verdict: str) -> None:
    record = made(**fields)
    assert record.verdict == verdict
    assert record.holds is (verdict == "holds")


def test_a_figure_is_found_by_name_and_variant_and_a_missing_one_is_a_clear_error() -> None:
    slow, fast = (Figure(name="latency", value=value, unit="ms", variant=v) for v, value in (("slow", 9), ("fast", 1)))
    record = made(figures=(slow, fast))
    assert (record.figure("latency"), record.figure("latency", "fast")) == (slow, fast)
    with pytest.raises(ConfigurationError, match="a-lab/01_first has no figure 'latency' of variant 'odd'"):
        record.figure("latency", "odd")
