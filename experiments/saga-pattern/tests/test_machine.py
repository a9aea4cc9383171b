"""The state machine, with no servers: what it does, and what no sequence of happenings can make it do."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saga.orchestrator.definition import Definition, Retry, load, read, timed
from saga.orchestrator.machine import (
    ENDED,
    MOVING,
    Answered,
    Busy,
    Happening,
    Muddled,
    NotPossible,
    SagaState,
    Status,
    Told,
    Turn,
    Verb,
    Woken,
    begin,
    current,
    happen,
    park,
)
from saga.order import STEPS, UNDO, Action

SAGA = timed(read(), attempt=1.0, retry=Retry(attempts=2, first=0.5, jitter=0.0), whole=100.0)
NEW = begin(SAGA, "order-1", 0.0).state


def play(*happenings: Happening, state: SagaState = NEW, definition: Definition = SAGA) -> list[Turn]:
    """The turns that these make, all at the time that is due by then: an answer comes at the last moment."""
    turns = []
    for happening in happenings:
        turn = happen(definition, state, happening, state.due or 0.0)
        turns.append(turn)
        state = turn.state
    return turns


def done(*actions: Action) -> list[Happening]:
    return [Answered(action) for action in actions]


def commands(turns: Sequence[Turn]) -> list[Action]:
    return [turn.command for turn in turns if turn.command]


def test_every_answer_asks_for_the_next_step_and_the_last_completes() -> None:
    turns = play(*done(*STEPS))
    assert commands(turns) == list(STEPS[1:])
    assert (turns[-1].state.status, turns[-1].state.due) == (Status.COMPLETED, None)


def test_a_refused_step_is_not_undone_the_steps_before_it_are_in_reverse() -> None:
    turns = play(Answered(Action.PLACE), Answered(Action.RESERVE), Answered(Action.CHARGE, "no money"))
    turns += play(*done(Action.RELEASE, Action.CANCEL), state=turns[-1].state)
    assert commands(turns) == [Action.RESERVE, Action.CHARGE, Action.RELEASE, Action.CANCEL]
    assert (turns[-1].state.status, turns[-1].state.reason) == (Status.COMPENSATED, "charge-payment refused: no money")


def test_a_step_that_nobody_answers_is_asked_again_and_at_last_undone_itself() -> None:
    turns = play(Answered(Action.PLACE), *[Woken()] * 3)
    assert commands(turns) == [Action.RESERVE, Action.RESERVE, Action.RELEASE]
    last = turns[-1].state
    assert (last.attempt, last.reason) == (1, "reserve-stock: no answer in time, after 2 attempts")


def test_a_busy_service_is_asked_again_after_a_pause() -> None:
    busy, again = play(Busy(Action.PLACE, "busy", 1), Woken())
    assert (busy.command, busy.state.waiting, again.command) == (None, False, Action.PLACE)
    assert (again.state.attempt, again.state.due) == (2, (busy.state.due or 0) + 1.0)


def test_a_service_that_says_twice_that_it_is_busy_is_asked_again_once() -> None:
    first, second = play(*[Busy(Action.PLACE, "busy", 1)] * 2)
    assert (second.state, second.command, second.stray) == (first.state, None, False)


@pytest.mark.parametrize("before", [Busy(Action.PLACE, "busy", 1), Woken()], ids=["comes again", "comes late"])
def test_a_busy_service_uses_up_the_attempt_that_it_answers_and_no_other(before: Happening) -> None:
    *_, asked, stale, busy = play(before, Woken(), Busy(Action.PLACE, "busy", 1), Busy(Action.PLACE, "busy", 2))
    assert (asked.state.attempt, stale.state) == (2, asked.state)
    assert stale.note == "answer of place-order ignored: it comes again, or too late"
    assert busy.command == Action.CANCEL  # two attempts is the policy


def test_an_answer_to_an_earlier_attempt_counts() -> None:
    [*_, turn] = play(Woken(), Answered(Action.PLACE))  # it comes in the pause
    assert turn.command == Action.RESERVE


def test_an_answer_that_comes_again_or_too_late_changes_nothing() -> None:
    *_, before, late = play(*done(Action.PLACE, Action.RESERVE), *[Woken()] * 3, Answered(Action.CHARGE))
    assert (late.state, late.command, late.stray) == (before.state, None, False)
    assert late.note == "answer of charge-payment ignored: it comes again, or too late"


def test_an_answer_of_what_was_never_asked_is_a_stray() -> None:
    [turn] = play(Answered(Action.SHIP))
    assert (turn.state, turn.command, turn.stray) == (NEW, None, True)


def test_an_answer_to_a_compensation_that_is_still_to_be_asked_for_is_a_stray() -> None:
    told, answered = play(Told(Verb.COMPENSATE), Answered(Action.CANCEL))
    assert (answered.state, answered.stray) == (told.state, True)


@pytest.mark.parametrize("command", ["order-1:place-order#1", "", "of another program"])
def test_an_answer_that_nobody_can_read_leaves_the_saga_to_the_operator(command: str) -> None:
    [turn] = play(Muddled(command, "a byte"))
    assert (turn.state.status, turn.state.due, turn.command) == (Status.PARKED, None, None)
    assert turn.state.reason == "nobody can read the answer of place-order: a byte"
    [told] = play(Told(Verb.COMPENSATE), state=turn.state)
    assert (told.state.status, current(SAGA, told.state)) == (Status.COMPENSATING, Action.CANCEL)


@pytest.mark.parametrize(
    ("before", "command"),
    [([], "order-1:place-order#2"), (done(Action.PLACE), "order-1:place-order#1"), ([Woken()], "")],
    ids=["of another attempt", "of what is done", "while it pauses"],
)
def test_an_answer_that_nobody_can_read_and_nobody_waits_for_changes_nothing(
    before: list[Happening], command: str
) -> None:
    state = play(*before)[-1].state if before else NEW
    [turn] = play(Muddled(command, "a byte"), state=state)
    assert (turn.state, turn.command, turn.stray) == (state, None, False)


def test_what_rests_is_not_parked() -> None:
    completed = play(*done(*STEPS))[-1].state
    assert park(completed, "its definition is gone").state == completed


def test_out_of_time_undoes_whatever_is_being_done() -> None:
    state = replace(play(Answered(Action.PLACE))[0].state, deadline=0.5)
    turn = happen(SAGA, replace(state, due=0.5), Woken(), 0.5)
    assert (turn.command, turn.state.reason) == (Action.RELEASE, "the saga is out of time")


def test_no_attempt_lasts_beyond_the_deadline_of_the_saga() -> None:
    short = timed(SAGA, attempt=1.0, retry=Retry(), whole=0.3)
    assert begin(short, "order-1", 0.0).state.due == 0.3


def test_a_compensation_that_nobody_answers_is_parked_and_what_is_undone_stays_so() -> None:
    turns = play(*done(Action.PLACE, Action.RESERVE), Answered(Action.CHARGE, "no"), Answered(Action.RELEASE))
    turns += play(*[Woken()] * 39, state=turns[-1].state)
    parked = turns[-1].state
    assert (parked.status, parked.due, parked.reason) == (
        Status.PARKED,
        None,
        "cancel-order: no answer in time, after 20 attempts",
    )
    assert commands(turns).count(Action.RELEASE) == 1


def test_a_refused_compensation_is_parked_with_the_reason() -> None:
    turns = play(Answered(Action.PLACE), Answered(Action.RESERVE, "none left"), Answered(Action.CANCEL, "never"))
    assert (turns[-1].state.status, turns[-1].state.reason) == (Status.PARKED, "cancel-order refused: never")


def parked() -> SagaState:
    """At the compensation of the second step."""
    turns = play(*done(Action.PLACE, Action.RESERVE), Answered(Action.CHARGE, "no"), Answered(Action.RELEASE, "never"))
    return turns[-1].state


def test_a_parked_compensation_that_is_done_after_all_needs_no_operator() -> None:
    release, cancel = play(*done(Action.RELEASE, Action.CANCEL), state=parked())
    assert (release.state.status, release.command) == (Status.COMPENSATING, Action.CANCEL)
    assert release.note == "after all release-stock done: ask for cancel-order, attempt 1"
    reason = "release-stock refused: never; done later"
    assert (cancel.state.status, cancel.state.reason) == (Status.COMPENSATED, reason)


@pytest.mark.parametrize(
    "answer", [Answered(Action.RELEASE, "never"), Answered(Action.CHARGE), Answered(Action.CANCEL)]
)
def test_no_other_answer_moves_a_parked_compensation(answer: Answered) -> None:
    [turn] = play(answer, state=parked())
    assert (turn.state, turn.command, turn.stray) == (parked(), None, answer.action == Action.CANCEL)


def test_a_parked_step_is_left_to_the_operator_though_it_is_answered() -> None:
    waiting = park(NEW, "its order cannot be read").state
    [turn] = play(Answered(Action.PLACE), state=waiting)
    assert (turn.state, turn.command) == (waiting, None)


@pytest.mark.parametrize(("verb", "asks"), [(Verb.RETRY, Action.RELEASE), (Verb.SKIP, Action.CANCEL)])
def test_an_operator_has_a_parked_compensation_tried_again_or_skipped(verb: Verb, asks: Action) -> None:
    told, woken = play(Told(verb), Woken(), state=parked())
    assert (told.command, told.state.status, woken.command) == (None, Status.COMPENSATING, asks)


def test_an_operator_has_a_running_saga_undone() -> None:
    told, woken = play(Told(Verb.COMPENSATE), Woken(), state=play(*done(Action.PLACE))[0].state)
    assert (told.state.reason, woken.command) == ("the operator's decision", Action.RELEASE)


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        (Verb.RETRY, NEW),
        (Verb.SKIP, NEW),
        (Verb.COMPENSATE, parked()),
        (Verb.COMPENSATE, play(*done(*STEPS))[-1].state),
        (Verb.RETRY, play(*done(*STEPS))[-1].state),
    ],
    ids=str,
)
def test_an_operator_is_told_what_makes_no_sense(verb: Verb, state: SagaState) -> None:
    with pytest.raises(NotPossible, match=f"cannot {verb} saga 'order-1': it is {state.status}"):
        happen(SAGA, state, Told(verb), 0.0)


def test_steps_that_leave_nothing_are_not_undone() -> None:
    charge = {"action": "charge-payment", "compensable": False}
    definition = load({"name": "test", "steps": [charge, {"action": "ship-order", "undo": "recall-shipment"}]})
    turns = play(
        Answered(Action.CHARGE),
        Answered(Action.SHIP, "no"),
        state=begin(definition, "s", 0).state,
        definition=definition,
    )
    assert (turns[-1].state.status, commands(turns)) == (Status.COMPENSATED, [Action.SHIP])


Likely = Callable[[Action], Happening]
# What is mostly: the answer that is waited for. Without it few sequences would get anywhere.
LIKELY: list[Likely] = [Answered, lambda action: Answered(action, "no"), lambda action: Busy(action, "busy", 1)]
actions = st.sampled_from(list(Action))
happenings = st.one_of(
    st.builds(Answered, actions, st.sampled_from(["", "", "no"])),
    st.builds(Busy, actions, st.just("busy"), st.integers(1, 3)),
    st.builds(Muddled, st.sampled_from(["", "order-1:place-order#1", "order-1:refund-payment#1"]), st.just("?")),
    st.just(Woken()),
    st.builds(Told, st.sampled_from(Verb)),
)
# (what, or instead of it an answer to what is asked, seconds after the one before)
sequences = st.lists(st.tuples(happenings, st.none() | st.sampled_from(LIKELY), st.floats(0, 3)), max_size=60)
Sequence_ = list[tuple[Happening, Likely | None, float]]


@given(sequences)
def test_no_sequence_of_happenings_leads_where_nothing_is_due_and_nobody_waits(sequence: Sequence_) -> None:
    for turn in wander(sequence):
        assert (turn.state.due is not None) == (turn.state.status in MOVING)
        assert (current(SAGA, turn.state) is not None) == (turn.state.status in MOVING)
        assert turn.command is None or turn.command == current(SAGA, turn.state)


@given(sequences)
def test_whatever_happens_steps_are_begun_in_order_and_undone_in_reverse(sequence: Sequence_) -> None:
    asked = [Action(action) for action in wander(sequence)[-1].state.asked]
    begun, undone = [action for action in asked if action in STEPS], [action for action in asked if action not in STEPS]
    assert begun == list(STEPS[: len(begun)])
    assert undone == [UNDO[step] for step in reversed(begun) if UNDO[step] in undone]


@given(sequences)
def test_what_is_compensated_was_asked_to_undo_all_that_may_have_been_done(sequence: Sequence_) -> None:
    turns = wander(sequence)
    last = turns[-1].state
    if last.status is Status.COMPENSATED:
        begun = {step for step in STEPS if step in last.asked}
        refused = {step for step in STEPS if any(turn.note.startswith(f"{step} refused") for turn in turns)}
        assert {UNDO[step] for step in begun - refused} <= set(last.asked)


def wander(sequence: Sequence_) -> list[Turn]:
    """Turns from the beginning of a saga on; what an operator cannot say is not said."""
    turns, now = [begin(SAGA, "order-1", 0.0)], 0.0
    for happening, likely, later in sequence:
        state, now = turns[-1].state, now + later
        asked = current(SAGA, state)
        try:
            turn = happen(SAGA, state, likely(asked) if likely and asked else happening, now)
        except NotPossible:
            continue
        assert state.status not in ENDED or turn.state == state
        turns.append(turn)
    return turns
