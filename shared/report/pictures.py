"""A run's histories as pictures, with the sentence that says what each shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import HistoryError
from shared.history import History
from shared.record import Finding, HistorySummary
from shared.report.diagram import Diagram
from shared.report.excerpt import LIMITS, Excerpt, Limits
from shared.report.overview import Overview, overview
from shared.report.past import Past
from shared.report.sentences import sentence
from shared.report.spacetime import diagram
from shared.report.views import Run
from shared.report.words import count, listed

FIRST = "outbox-pattern/01_dual_write"  # an order, a crash, and no event: what a newcomer sees at once
SMALL = Limits(values=6, marks=24, faults=1, findings=1, reach=2)


@dataclass(frozen=True, slots=True)
class Story:
    """One finding in words. `anchor` is where the diagram shows it, empty if nowhere; `number` is its event's there."""

    finding: Finding
    text: str
    anchor: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class HistoryView:
    """One history of a run. `diagram` is None where there is nothing to draw; `missing` then says why."""

    uid: str  # on its page
    summary: HistorySummary
    diagram: Diagram | None
    overview: Overview | None
    caption: str
    missing: str
    stories: tuple[Story, ...]

    @property
    def anomalies(self) -> dict[str, int]:
        return {kind: amount for kind, amount in self.summary.counts.items() if amount}

    @property
    def anchors(self) -> set[str]:
        """What of the diagram somebody may be led to."""
        return {story.anchor for story in self.stories}


def histories(run: Run) -> Iterator[HistoryView]:
    """The run's histories one by one: each may hold a million operations, so that two never need be in memory."""
    for number, summary in enumerate(run.record.histories, 1):
        yield _view(run, summary, f"h{number}")


def featured(runs: Sequence[Run]) -> tuple[Run, HistoryView] | None:
    """A small picture for the index: a wrong way that failed where there is one, else anything that went wrong."""
    candidates = [(run, summary) for run in runs for summary in run.record.histories if summary.findings]
    if not candidates:
        return None
    # The shortest of equals: it is read for one small picture.
    run, summary = min(candidates, key=lambda pair: (*_rank(*pair), pair[1].operations))
    view = _view(run, summary, "featured", SMALL)
    return (run, view) if view.diagram else None


def _rank(run: Run, summary: HistorySummary) -> tuple[bool, bool, bool]:
    first = f"{run.record.lab}/{run.record.experiment}" != FIRST
    return not summary.wrong_way, not summary.faults, first


def _view(run: Run, summary: HistorySummary, uid: str, limits: Limits = LIMITS) -> HistoryView:
    try:
        path = _inside(run.folder, summary.path)
        if run.committed and not path.exists():
            return _undrawn(uid, summary, "")
        history = History.read(path)
    except (OSError, HistoryError, ValueError) as error:
        return _undrawn(uid, summary, f"The history cannot be shown: {error}")
    picture = diagram(history, summary.findings, limits)
    if picture is None:
        return _undrawn(uid, summary, "The history holds nothing to draw.")
    strip = overview(history, picture.excerpt, summary.findings)
    stories = _stories(history, summary, picture)
    return HistoryView(uid, summary, picture, strip, caption(picture.excerpt, summary), "", stories)


def _undrawn(uid: str, summary: HistorySummary, why: str) -> HistoryView:
    stories = tuple(Story(finding, sentence(finding)) for finding in summary.findings)
    return HistoryView(uid, summary, None, None, "", why, stories)


def _stories(history: History, summary: HistorySummary, picture: Diagram) -> tuple[Story, ...]:
    past, numbers = Past.of(history, summary.findings), picture.excerpt.numbers
    return tuple(
        Story(finding, sentence(finding, past), picture.anchor(finding), numbers.get(finding.value, 0))
        for finding in summary.findings
    )


def _inside(folder: Path, path: str) -> Path:
    """The history's file. A record may come from elsewhere: its path must not lead out of its folder."""
    whole = (folder / path).resolve()
    if not whole.is_relative_to(folder.resolve()):
        raise HistoryError(f"{path} lies outside the run's folder")
    return whole


def caption(excerpt: Excerpt, summary: HistorySummary) -> str:
    """What the excerpt shows and what it leaves out."""
    found = sum(summary.counts.values())
    focuses = [
        *([_of(len(excerpt.faults), excerpt.all_faults, "fault")] if excerpt.all_faults else []),
        *([_of(len(excerpt.findings), found, "anomaly", "anomalies")] if excerpt.findings else []),
    ]
    if excerpt.complete:
        return f"Showing all {count(excerpt.values, 'event')}" + (f", with {listed(focuses)}." if focuses else ".")
    around = f"around {listed(focuses)}" if focuses else "from the beginning; no fault and no anomaly"
    return f"Showing {excerpt.values:,} of {count(excerpt.all_values, 'event')} {around}."


def _of(shown: int, amount: int, singular: str, plural: str = "") -> str:
    return count(shown, singular, plural) if shown >= amount else f"{shown:,} of {count(amount, singular, plural)}"
