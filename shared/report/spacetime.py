"""History -> space-time diagram: time runs downwards, one lane per process, arrows follow each event."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from shared.history import Action, History, Op
from shared.record import Finding
from shared.report.attempts import Attempt
from shared.report.diagram import Arrow, Diagram, FaultMark, Label
from shared.report.excerpt import LIMITS, Excerpt, Limits, choose
from shared.report.lanes import RIGHT, Lane, lanes
from shared.report.links import Link, links
from shared.report.marks import LOST, STATES, Mark, anomaly_label, details
from shared.report.steps import act, hit
from shared.report.timeline import Break, Instant, Timeline, lay_out
from shared.report.words import count, milliseconds, number, shortened

TOP, BOTTOM = 72.0, 56.0  # px for the lanes' names above, and below the last mark
MARK, ANOMALY, FAULT = 15.0, 20.0, 26.0  # px that each needs in its lane


@dataclass(frozen=True, slots=True)
class _Plot:
    """What is shown and where: `starts`, `ends` and `strikes` are the y of attempts and of faults."""

    history: History
    excerpt: Excerpt
    lanes: tuple[Lane, ...]
    timeline: Timeline
    zero: int
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    strikes: tuple[tuple[float, float], ...]
    findings: dict[tuple[str, int, str], list[Finding]]

    def lane(self, process: str) -> int:
        return next(place for place, lane in enumerate(self.lanes) if lane.process == process)

    def found(self, attempt: Attempt) -> list[Finding]:
        return self.findings.get((attempt.op.process, attempt.end, attempt.op.value), [])


def diagram(history: History, findings: Sequence[Finding], limits: Limits = LIMITS) -> Diagram | None:
    """The picture of a history, or None where it holds nothing to draw."""
    excerpt = choose(history, findings, limits)
    if not excerpt.attempts and not excerpt.faults:
        return None
    plot = _plot(history, excerpt)
    return Diagram(
        width=plot.lanes[-1].x + RIGHT,
        height=plot.timeline.bottom + BOTTOM,
        top=TOP,
        bottom=plot.timeline.bottom + 20,
        lanes=plot.lanes,
        marks=tuple(_mark(plot, place) for place in range(len(excerpt.attempts))),
        arrows=(*_arrows(plot), *_lost(plot)),
        faults=tuple(_fault(plot, place) for place in range(len(excerpt.faults))),
        breaks=tuple(Label(cut.y, _left_out(history, excerpt, cut)) for cut in plot.timeline.breaks),
        ticks=tuple(Label(y, number((at - plot.zero) / 1e6)) for y, at in plot.timeline.ticks()),
        excerpt=excerpt,
    )


def _plot(history: History, excerpt: Excerpt) -> _Plot:
    columns = lanes(excerpt.attempts, excerpt.faults)
    index = {lane.process: place for place, lane in enumerate(columns)}
    findings: dict[tuple[str, int, str], list[Finding]] = {}
    for finding in excerpt.findings:
        findings.setdefault((finding.process, finding.at, finding.value), []).append(finding)
    ends = [_end_of(attempt, index, findings) for attempt in excerpt.attempts]
    starts = [Instant(attempt.start, end.lane, 0) for attempt, end in zip(excerpt.attempts, ends, strict=True)]
    strikes = [Instant(fault.at, index[fault.process], FAULT, 2) for fault in excerpt.faults]
    lifts = [Instant(fault.until or fault.at, index[fault.process], 0) for fault in excerpt.faults]
    timeline = lay_out([*strikes, *lifts, *starts, *ends], TOP + 20)
    y, hits, tries = timeline.ys, len(strikes), len(ends)
    return _Plot(
        history=history,
        excerpt=excerpt,
        lanes=columns,
        timeline=timeline,
        zero=min(instant.at for instant in timeline.instants),
        starts=y[2 * hits : 2 * hits + tries],
        ends=y[2 * hits + tries :],
        strikes=tuple(zip(y[:hits], y[hits : 2 * hits], strict=True)),
        findings=findings,
    )


def _end_of(attempt: Attempt, index: dict[str, int], findings: dict[tuple[str, int, str], list[Finding]]) -> Instant:
    odd = (attempt.op.process, attempt.end, attempt.op.value) in findings
    # An anomaly's label is longer than the space between lanes can be.
    return Instant(attempt.end, index[attempt.op.process], ANOMALY if odd else MARK, 2 if odd else 1)


def _mark(plot: _Plot, place: int) -> Mark:
    attempt = plot.excerpt.attempts[place]
    lane, number, found = plot.lane(attempt.op.process), plot.excerpt.numbers[attempt.op.value], plot.found(attempt)
    return Mark(
        lane=lane,
        x=plot.lanes[lane].x,
        y=plot.ends[place],
        start=plot.starts[place] if attempt.start < attempt.end else plot.ends[place],
        action=attempt.op.action.value,
        state=STATES[attempt.op.outcome],
        number=number,
        label=f"{number:,}",
        odd=bool(found),
        anomaly=anomaly_label(found),
        details=details(attempt, number, plot.zero, found, plot.history),
        at=attempt.end - plot.zero,
        line=act(attempt, number, plot.zero, found),
    )


def _arrows(plot: _Plot) -> list[Arrow]:
    return [_arrow(plot, link) for link in links(plot.excerpt.attempts)]


def _arrow(plot: _Plot, link: Link) -> Arrow:
    source, target = plot.excerpt.attempts[link.source], plot.excerpt.attempts[link.target]
    # A broker may hand on what its sender was not yet told of: such an arrow leaves from where the send began.
    leaves = plot.ends[link.source] if source.end <= target.start else plot.starts[link.source]
    arrives = plot.starts[link.target] if target.start < target.end else plot.ends[link.target]
    x1, x2 = (plot.lanes[plot.lane(attempt.op.process)].x for attempt in (source, target))
    kind = "local" if x1 == x2 else "message"
    return Arrow(kind, plot.excerpt.numbers[source.op.value], link.target, x1, min(leaves, arrives), x2, arrives)


def _lost(plot: _Plot) -> list[Arrow]:
    """From the last trace of each lost event, half-way to the next lane."""
    found = []
    for finding in plot.excerpt.findings:
        traces = [place for place, attempt in enumerate(plot.excerpt.attempts) if attempt.op.value == finding.value]
        if finding.kind == LOST and traces:
            x, y = plot.lanes[plot.lane(plot.excerpt.attempts[traces[-1]].op.process)].x, plot.ends[traces[-1]]
            found.append(Arrow("lost", plot.excerpt.numbers[finding.value], traces[-1], x, y, x + 96, y + 2))
    return found


def _fault(plot: _Plot, place: int) -> FaultMark:
    fault = plot.excerpt.faults[place]
    lane, (y, end) = plot.lane(fault.process), plot.strikes[place]
    lasting = milliseconds(fault.until - fault.at) if fault.until else ""
    when = milliseconds(fault.at - plot.zero)
    return FaultMark(
        lane=lane,
        x=plot.lanes[lane].x,
        y=y,
        end=end if fault.until else y,
        down=_revival(plot, fault) if "kill" in fault.note.lower() else y,
        label=shortened(" for ".join(filter(None, [fault.note or "fault", lasting])), 36),
        title="; ".join(
            filter(None, [f"fault on {fault.process}: {fault.note}", f"at {when}", lasting and f"for {lasting}"])
        ),
        at=fault.at - plot.zero,
        line=hit(fault, plot.zero),
    )


def _revival(plot: _Plot, fault: Op) -> float:
    """Where the process shows life again, shown or not; the end of the lanes if it never does."""
    ops = plot.history.ops
    after = range(bisect_right(ops, fault.at, key=lambda op: op.at), len(ops))
    alive = next((ops[place].at for place in after if _lives(ops[place], fault.process)), None)
    shown = zip(plot.timeline.instants, plot.timeline.ys, strict=True)
    below = (y for instant, y in shown if alive is not None and instant.at >= alive)
    return min(below, default=plot.timeline.bottom + 20)


def _lives(op: Op, process: str) -> bool:
    return op.process == process and op.action is not Action.FAULT


def _left_out(history: History, excerpt: Excerpt, cut: Break) -> str:
    first, last = (bisect_right(history.ops, at, key=lambda op: op.at) for at in (cut.start, cut.end))
    passed = {op.value for op in history.ops[first:last] if op.action is not Action.READ}
    hidden = len(passed - excerpt.numbers.keys() - {""})
    others = f", {count(hidden, 'event')} not shown" if hidden else ""
    return f"{milliseconds(cut.end - cut.start)} later{others}"
