"""An excerpt holds what matters and stays small."""

import pytest

from shared.history import Action, History, Op, Outcome
from shared.record import Finding
from shared.report.excerpt import LIMITS, choose
from shared.tests.report import samples


def plain(events: int, faults_at: tuple[int, ...] = ()) -> History:
    """Each event takes four operations, 1 ms apart; faults fall between events."""
    steps = (Action.WRITE, Action.SEND, Action.DELIVER, Action.EFFECT)
    ops = [
        Op(number * 4_000_000 + place * 1_000_000, action, action, Outcome.OK, f"e{number}", "k", number)
        for number in range(events)
        for place, action in enumerate(steps)
    ]
    faults = [Op(at * 4_000_000 - 1, "send", Action.FAULT, Outcome.OK, note="SIGKILL") for at in faults_at]
    return History([*ops, *faults])


@pytest.mark.parametrize("faults_at", [(500,), (3, 997), tuple(range(50, 1000, 50))])
def test_every_fault_is_shown_with_events_before_and_after_it(faults_at: tuple[int, ...]) -> None:
    excerpt = choose(plain(1000, faults_at), ())
    assert [fault.at // 4_000_000 + 1 for fault in excerpt.faults] == list(faults_at)
    assert {f"e{at}" for at in faults_at} | {f"e{at - 1}" for at in faults_at} <= excerpt.numbers.keys()


def test_every_finding_of_a_run_is_shown_with_its_event() -> None:
    history = History(samples.dual_write())
    findings = samples.found(history)
    excerpt = choose(history, findings)
    assert {finding.value for finding in findings} <= excerpt.numbers.keys()
    assert excerpt.findings == findings


def test_too_many_findings_leave_room_for_each_kind_and_for_what_is_normal() -> None:
    history = plain(1000)
    findings = [
        Finding(kind=kind, value=f"e{start + n}", key="k", process="deliver", at=(start + n) * 4_000_000, detail="")
        for kind, start in (("lost", 100), ("phantom", 500), ("reordered", 900))
        for n in range(20)
    ]
    excerpt = choose(history, findings)
    assert {finding.kind for finding in excerpt.findings} == {"lost", "phantom", "reordered"}
    assert LIMITS.findings < excerpt.values <= LIMITS.values


def test_the_limits_hold_over_a_long_history() -> None:
    excerpt = choose(plain(50_000, tuple(range(100, 50_000, 100))), ())
    assert len(excerpt.attempts) <= LIMITS.marks
    assert len(excerpt.faults) == LIMITS.faults
    assert (excerpt.all_values, excerpt.all_faults) == (50_000, 499)


def test_without_faults_and_anomalies_it_is_the_beginning() -> None:
    excerpt = choose(plain(1000), ())
    assert list(excerpt.numbers.values()) == list(range(1, LIMITS.plain + 1))


def test_an_event_delivered_over_and_over_does_not_fill_the_picture() -> None:
    again = [Op(at, "consumer", Action.DELIVER, Outcome.OK, "e1") for at in range(5_000)]
    finding = Finding(kind="duplicate delivery", value="e1", key="", process="consumer", at=4_000, detail="")
    excerpt = choose(History(again), [finding])
    assert len(excerpt.attempts) == LIMITS.marks_per_value
    assert 4_000 in {attempt.end for attempt in excerpt.attempts}
