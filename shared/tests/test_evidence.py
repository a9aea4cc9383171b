"""What documents cite comes from committed records, and is missing loudly."""

from pathlib import Path

import pytest

from shared import evidence
from shared.errors import ConfigurationError
from shared.record import Claim, Figure, RunRecord
from shared.report.syllabus import Group, Section, Topic
from shared.tests.test_record import made

TARGET = "a-lab/01_first"
CLAIMS = (
    Claim(text="right holds", holds=True, fact="0 of 1,000 lost", topics=("I.1/a/b",)),
    Claim(text="wrong holds", holds=False, wrong_way=True, topics=("I.1/a/c",)),
)
FIGURES = (
    Figure(name="lost", value=0, unit="events", variant="right"),
    Figure(name="lost", value=12_345, unit="events", variant="wrong"),
    Figure(name="latency", value=1.2345, unit="ms", n=9, p99=6.789),
    Figure(name="ratio", value=0.5, unit=""),
    Figure(name="rate", value=900, unit="tx/s", variant="right", x=8, x_label="writers"),
    Figure(name="rate", value=100, unit="tx/s", variant="right", x=1, x_label="writers"),
    Figure(name="rate", value=70, unit="tx/s", variant="wrong", x=1, x_label="writers"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that documents cite from in place of the committed one, with one record in it."""
    evidence.keep(made(claims=CLAIMS, figures=FIGURES), tmp_path)
    for function in (evidence.read, evidence.committed):
        monkeypatch.setattr(function, "__defaults__", (tmp_path,))
    return tmp_path


def test_a_kept_record_comes_back(folder: Path) -> None:
    assert evidence.read(TARGET) == made(claims=CLAIMS, figures=FIGURES)
    assert list(evidence.committed()) == [evidence.read(TARGET)]


def test_keeping_again_replaces(folder: Path) -> None:
    evidence.keep(made(), folder)
    assert list(evidence.committed()) == [made()]


@pytest.mark.parametrize(
    ("name", "variant", "text"),
    [
        ("lost", "right", "0 events"),
        ("lost", "wrong", "12,345 events"),
        ("latency", "", "1.23 (p99 6.79) ms"),
        ("ratio", "", "0.5"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_value_is_cited_with_its_unit(name: str, variant: str, text: str) -> None:
    assert evidence.value(TARGET, name, variant) == text


@pytest.mark.usefixtures("folder")
def test_a_missing_figure_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="a-lab/01_first has no figure 'speed'"):
        evidence.value(TARGET, "speed")


@pytest.mark.usefixtures("folder")
def test_a_missing_record_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match=r"02_none\.json is not a run record"):
        evidence.value("a-lab/02_none", "lost")


@pytest.mark.usefixtures("folder")
def test_a_grid_has_a_column_for_every_variant_and_says_what_is_not_there() -> None:
    lines = evidence.grid(TARGET).splitlines()
    assert lines[0] == "| | right | wrong |"
    assert "| rate (8 writers), tx/s | 900 | — |" in lines
    assert "| rate (1 writers), tx/s | 100 | 70 |" in lines


@pytest.mark.usefixtures("folder")
def test_a_pipe_in_a_fact_does_not_break_the_table(folder: Path) -> None:
    evidence.keep(made(claims=[Claim(text="a | b", holds=True)]), folder)
    assert "| a \\| b |" in evidence.claims("a-lab")


@pytest.mark.usefixtures("folder")
def test_claims_are_a_table_with_verdict_and_fact() -> None:
    assert evidence.claims("a-lab").splitlines()[2:] == [
        "| | | **A title** (`lab run a-lab/01`) | |",
        "| ✔ |  | right holds | 0 of 1,000 lost |",
        "| ✘ | wrong way | wrong holds |  |",
    ]


def test_claims_of_a_lab_are_its_own(folder: Path) -> None:
    evidence.keep(made(lab="b-lab", claims=(Claim(text="other", holds=True),)), folder)
    assert "other" not in evidence.claims("a-lab")
    assert "other" in evidence.claims("b-lab")


@pytest.mark.usefixtures("folder")
def test_the_environment_is_one_sentence() -> None:
    assert evidence.environment(TARGET) == (
        "Run of 2026-01-02 at commit abc123+, seed 7: 2 cores, 24 GB, fsync 1.25 ms, load 0.5, postgres 18.4 (native)."
    )


def test_a_run_on_this_machine_is_newer_than_the_committed_one(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    here = made(claims=(Claim(text="here", holds=True),))
    here.write(home / "runs" / "a-lab" / "01_first" / "1")
    evidence.keep(made("02_committed"), folder)
    assert by_name(evidence.newest(home, folder)) == {"01_first": "here", "02_committed": "it holds"}


def by_name(records: list[RunRecord]) -> dict[str, str]:
    return {record.experiment: record.claims[0].text for record in records}


@pytest.mark.usefixtures("folder")
def test_the_syllabus_has_a_claim_only_where_it_held() -> None:
    topics = tuple(Topic(f"I.1/a/{name}", f"topic {name}") for name in "bcd")
    section = Section("I.1", "Fundamentals", "a-lab", "", (Group("a", topics),))
    text = evidence.syllabus([section], list(evidence.committed()))
    assert "1 of 3 topics are shown by a claim that held" in text
    assert "| topic b | a-lab/01_first: right holds |" in text
    assert text.count("| — |") == 2


REPORTED = Claim(
    text="a | b is lost",
    holds=True,
    wrong_way=True,
    fact="3 of 9 lost",
    source="confluentinc/librdkafka#5423, nab#1007",
)


def test_known_bugs_link_the_reports_and_name_the_versions_that_the_claim_ran_on() -> None:
    *_, row = evidence.bugs([made(claims=(*CLAIMS, REPORTED))]).splitlines()
    assert row.startswith(
        "| [confluentinc/librdkafka#5423](https://github.com/confluentinc/librdkafka/issues/5423), nab#1007 | "
        "postgres 18.4 (native)"
    )
    assert row.endswith("| wrong way fails, as expected | a \\| b is lost | 3 of 9 lost | `lab run a-lab/01` |")


def test_without_a_reported_bug_the_document_says_so() -> None:
    assert "no report is recorded yet" in evidence.bugs([made(claims=CLAIMS)])
