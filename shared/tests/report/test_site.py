"""The site as files: every page is there, and nothing in a record can break one."""

import re
from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from shared.history import Action, Outcome, Recorder
from shared.record import Claim, Figure, Finding, HistorySummary, NotPossible
from shared.report.site import build, build_evidence
from shared.tests.report import samples

HOSTILE = """<script>alert(1)</script>]]>"'&--><img src=x onerror=alert(1)>{{ 7 * 7 }}"""


def test_no_runs_make_a_page_that_says_how_to_have_some(home: Path, root: Path) -> None:
    page = build(home, root)
    assert page == home / "report" / "index.html"
    assert "There are no runs yet" in page.read_text()
    assert "make demo" in page.read_text()


def test_each_experiment_has_a_page_with_the_command_that_repeats_it(site: Path) -> None:
    page = (site / "run--outbox-pattern--04_kill_the_relay.html").read_text()
    assert "lab run outbox-pattern/04_kill_the_relay --scale demo --seed 7" in page
    assert "Showing 11 of 402 events around 1 fault and 3 anomalies." in page


def test_a_wrong_way_that_fails_is_not_shown_as_a_failure(site: Path) -> None:
    page = (site / "run--outbox-pattern--01_dual_write.html").read_text()
    assert page.count("wrong way fails, as expected") == 2
    assert "does not hold" not in page


def test_cards_name_the_variant_that_they_are_about(site: Path) -> None:
    index = (site / "index.html").read_text()
    assert '<span class="variant">dual write</span> A dual write loses the event' in index
    assert '<span class="variant">dual write</span><span class="tag">wrong way</span>' in index
    page = (site / "run--outbox-pattern--01_dual_write.html").read_text()
    assert '<span class="variant">polling outbox</span><span class="tag">right way</span>' in page


def test_only_the_newest_run_is_shown_and_pages_of_gone_experiments_go(home: Path, root: Path) -> None:
    for time, title in (("1", "the old run"), ("2", "the new run")):
        run = samples.record(title=title)
        run.write(samples.folder_of(home, run, time))
    stale = home / "report" / "run--gone.html"
    stale.parent.mkdir()
    stale.touch()
    index = build(home, root).read_text()
    assert "the new run" in index
    assert "the old run" not in index
    assert not stale.exists()


def test_hostile_text_is_text_on_every_page(home: Path, root: Path) -> None:
    folder = samples.folder_of(home, samples.record())
    with Recorder(folder / "h.jsonl", HOSTILE) as recorder:
        recorder.record(Action.WRITE, Outcome.OK, HOSTILE, key=HOSTILE, note=HOSTILE)
        recorder.record(Action.FAULT, Outcome.OK, note=HOSTILE)
    finding = Finding(kind=HOSTILE, value=HOSTILE, key=HOSTILE, process=HOSTILE, at=1, detail=HOSTILE)
    samples.record(
        title=HOSTILE * 100,
        question=HOSTILE,
        error=HOSTILE,
        topics=(HOSTILE,),
        parameters={HOSTILE: HOSTILE},
        claims=(Claim(text=HOSTILE, holds=True, fact=HOSTILE, topics=(HOSTILE,), variant=HOSTILE, source=HOSTILE),),
        figures=(Figure(name=HOSTILE, value=1, unit=HOSTILE, variant=HOSTILE, x=HOSTILE),),
        histories=(
            HistorySummary(
                name=HOSTILE, path="h.jsonl", operations=2, faults=1, counts={HOSTILE: 1}, findings=(finding,)
            ),
        ),
        not_possible=(NotPossible(step=HOSTILE, reason=HOSTILE),),
    ).write(folder)
    pages = [path.read_text() for path in build(home, root).parent.glob("*.html")]
    assert all(page.count("<script") == 1 for page in pages)
    assert not any("<img" in page for page in pages)


def test_names_of_folders_cannot_lead_out_of_the_report(home: Path, root: Path) -> None:
    run = samples.record(lab="..", experiment="x y/../../z")
    run.write(home / "runs" / "lab" / "experiment" / "1")
    pages = {path.name for path in build(home, root).parent.rglob("*.html")}
    assert any(re.fullmatch(r"run--[\w-]+\.html", name) for name in pages)


@pytest.mark.parametrize("path", ["missing.jsonl", "../../../../secret.jsonl", "broken.jsonl"])
def test_a_history_that_cannot_be_read_leaves_the_rest_of_its_page(home: Path, root: Path, path: str) -> None:
    summary = HistorySummary(name="h", path=path, operations=1, faults=0, counts={"lost": 3})
    run = samples.record(histories=(summary,))
    folder = samples.folder_of(home, run)
    run.write(folder)
    (folder / "broken.jsonl").write_text("not an operation\n")
    page = (build(home, root).parent / "run--outbox-pattern--01_sample.html").read_text()
    assert "The history cannot be shown" in page
    assert "3 × lost" in page


def test_coverage_links_each_topic_to_the_claims_that_show_it(site: Path) -> None:
    page = (site / "coverage.html").read_text()
    assert page.count('class="done"') == 2
    assert len(re.findall(r'class="(?:done|open)"', page)) == 265
    assert 'href="run--outbox-pattern--04_kill_the_relay.html"' in page


def test_committed_evidence_tells_anomalies_in_words_and_draws_those_whose_history_is_there(
    home: Path, root: Path
) -> None:
    here, gone = (samples.record(experiment=name) for name in ("01_here", "02_gone"))
    folder = root / "docs" / "evidence" / here.lab / here.experiment
    history = samples.recorded(folder, "killed", samples.dual_write(), wrong_way=True)
    records = [run.model_copy(update={"histories": (history,)}) for run in (here, gone)]
    index = build_evidence(records, home, root)
    drawn, told = ((index.parent / f"run--outbox-pattern--{name}.html").read_text() for name in ("01_here", "02_gone"))
    assert (index, drawn.count("data-spacetime"), told.count("data-spacetime")) == (
        home / "evidence" / "index.html",
        1,
        0,
    )
    assert all(page.count("Histories are too large to be committed") == 1 for page in (index.read_text(), drawn, told))
    assert "of order-6 was written by order-service and never delivered." in told
    assert str(root) not in told


REPORTED = Claim(text="an event is lost", holds=True, wrong_way=True, source="apache/kafka#12, elsewhere#3")


def test_known_bugs_have_a_section_with_report_version_verdict_and_run(home: Path, root: Path) -> None:
    run = samples.record(claims=(REPORTED,))
    run.write(samples.folder_of(home, run))
    index = build(home, root).read_text()
    section = index[index.index('id="bugs"') :].partition("</section>")[0]
    assert (
        '<a href="https://github.com/apache/kafka/issues/12" rel="noreferrer">apache/kafka#12</a>, elsewhere#3'
        in section
    )
    for text in ("an event is lost", "wrong way fails, as expected", "kafka 4.1.1 (native)", run.experiment):
        assert text in section


def test_without_a_reported_bug_there_is_no_section(site: Path) -> None:
    assert "Known bugs" not in (site / "index.html").read_text()


def test_a_missing_syllabus_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"syllabus\.yaml is not a syllabus"):
        build(home, tmp_path)


def test_decisions_are_rendered_without_html_and_without_cog_markers(site: Path) -> None:
    page = (site / "decision--0001-two-server-providers.html").read_text()
    assert "cog" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<td>outbox-pattern/04</td>" in page
    assert ("accepted" in page, "2026-11-24" in page) == (True, True)


def test_links_of_decisions_lead_to_pages_or_to_the_web_or_become_text(site: Path) -> None:
    page = (site / "decision--0001-two-server-providers.html").read_text()
    assert 'href="decision--0005-outbox.html"' in page
    assert 'href="https://example.org/why" rel="noreferrer"' in page
    assert "native.py" not in page
    assert "the code" in page
