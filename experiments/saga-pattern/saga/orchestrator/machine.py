"""The state machine of one saga: (state, what happened) -> (new state, what to ask). Pure: no clock, no database.

    running ──answers──> completed
       │ refused, out of attempts, out of time, operator
       v
    compensating ──answers──> compensated
       │ out of attempts, or (from both) an answer that nobody can read
       v
    parked ──operator──> running or compensating
       │ the compensation is answered after all
       v
    compensating

Where nobody knows whether a step was done, it is undone as well: a compensation undoes what is there, and keeps a
step that comes later from being done. A state that has not ended has a due time, or waits for an operator.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from saga.orchestrator.definition import Definition
from saga.order import Action
from shared.errors import LabError


class Status(StrEnum):
    """Where a saga stands."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    PARKED = "parked"  # it waits for an operator


MOVING = Status.RUNNING, Status.COMPENSATING
ENDED = Status.COMPLETED, Status.COMPENSATED


@dataclass(frozen=True, slots=True)
class SagaState:
    """One saga. Times are seconds of one clock, whichever."""

    id: str
    status: Status
    step: int  # number of the step, from 0, that is being done or being undone
    deadline: float  # of the steps
    undoing: bool = False
    attempt: int = 0  # how often the current command was asked
    waiting: bool = False  # for its answer; else for the time of the next attempt
    due: float | None = None  # when something has to be done unless something happens before
    asked: tuple[str, ...] = ()  # all that was ever asked, in this order
    reason: str = ""  # of the compensation, or of the wait for an operator


@dataclass(frozen=True, slots=True)
class Answered:
    """A service did it, or refuses to, ever, with its reason."""

    action: Action
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Busy:
    """A service could not do it now, when it was asked for this attempt."""

    action: Action
    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Muddled:
    """An answer came that nobody can read, to the command of this id, as far as it says."""

    command: str
    reason: str


@dataclass(frozen=True, slots=True)
class Woken:
    """The due time has come: an attempt or the saga has timed out, or a pause is over."""


class Verb(StrEnum):
    """What an operator can say."""

    RETRY = "retry"  # the cause is gone: ask again
    SKIP = "skip"  # it was done by hand, or need not be done: go on
    COMPENSATE = "compensate"  # undo the saga


@dataclass(frozen=True, slots=True)
class Told:
    """An operator decided."""

    verb: Verb


Happening = Answered | Busy | Muddled | Woken | Told


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of a saga: its state, the command to send now, and a sentence for its history.

    `stray`: the answer is of something that was never asked. It changed nothing, and somebody should look at it.
    """

    state: SagaState
    note: str
    command: Action | None = None
    stray: bool = False


class NotPossible(LabError):
    """An operator said something that makes no sense in the state of the saga."""


def begin(definition: Definition, saga: str, now: float) -> Turn:
    """A new saga, which asks for its first step."""
    return _go_on(definition, SagaState(saga, Status.RUNNING, 0, now + definition.timeout), now, "begun")


def happen(definition: Definition, state: SagaState, happening: Happening, now: float) -> Turn:
    """The next turn. Raises NotPossible, for an operator only: whatever else happens, there is an answer to it."""
    match happening:
        case Told(verb):
            return _told(definition, state, verb, now)
        case Woken():
            return _woken(definition, state, now)
        case Muddled(command, reason):
            return _muddled(definition, state, command, reason)
        case Answered(action, "") if action == _parked_undo(definition, state):
            reason = f"{state.reason}; done later"
            return _go_on(definition, _undo(definition, state, state.step - 1, reason), now, f"after all {action} done")
        case Answered(action) | Busy(action) if action != current(definition, state) or action not in state.asked:
            return _out_of_turn(state, action)
        case Busy(action, _, attempt) if not state.waiting or attempt != state.attempt:
            return _late(state, action)  # one that comes again, or slowly, must not use up the attempt after it
        case Busy(action, reason):
            return _again(definition, state, now, f"{action}: {reason}")
        case Answered(action, ""):
            return _go_on(definition, _after_current(definition, state), now, f"{action} done")
        case Answered(action, refused) if state.undoing:
            return park(state, f"{action} refused: {refused}")
        case Answered(action, refused):
            refusal = f"{action} refused: {refused}"
            return _go_on(definition, _undo(definition, state, state.step - 1, refusal), now, refusal)


def park(state: SagaState, reason: str) -> Turn:
    """Into the operator's list, unless it rests already."""
    if state.status not in MOVING:
        return Turn(state, f"ignored: {reason}")
    parked = replace(state, status=Status.PARKED, waiting=False, due=None, reason=reason)
    return Turn(parked, f"parked: {reason}")


def current(definition: Definition, state: SagaState) -> Action | None:
    """What is being asked, now or after a pause."""
    if state.status not in MOVING:
        return None
    step = definition.steps[state.step]
    return step.undo if state.undoing else step.action


def _muddled(definition: Definition, state: SagaState, command: str, reason: str) -> Turn:
    """Nobody knows what the service did, and it would say the same again: a person has to look. Unless it is past."""
    action = current(definition, state)
    past = command.startswith(f"{state.id}:") and command != f"{state.id}:{action}#{state.attempt}"
    if action is None or not state.waiting or past:
        return Turn(state, "an answer that nobody can read ignored: it comes again, or too late")
    return park(state, f"nobody can read the answer of {action}: {reason}")


def _parked_undo(definition: Definition, state: SagaState) -> Action | None:
    """The compensation that was asked for in vain, and that a parked saga waits for: its answer may still come.

    Then there is nothing left to decide: a service gives one answer for good, and the compensations below were not
    asked for yet. A parked step is another matter: the time of its saga may be over, and its operator may undo it.
    """
    undo = definition.steps[state.step].undo
    return undo if state.status is Status.PARKED and state.undoing and undo in state.asked else None


def _go_on(definition: Definition, state: SagaState, now: float, note: str) -> Turn:
    """Ask for what is current in a state that was just reached, unless that is an end."""
    action = current(definition, state)
    if action is None:
        return Turn(state, f"{note}: {state.status}")
    due = now + (definition.undo_timeout if state.undoing else definition.steps[state.step].timeout)
    asked = state.asked if action in state.asked else (*state.asked, action)
    attempt = state.attempt + 1
    asking = replace(state, attempt=attempt, waiting=True, due=_by(state, due), asked=asked)
    return Turn(asking, f"{note}: ask for {action}, attempt {attempt}", action)


def _by(state: SagaState, due: float) -> float:
    """The steps end at the deadline; their compensation does not."""
    return due if state.undoing else min(due, state.deadline)


def _after_current(definition: Definition, state: SagaState) -> SagaState:
    """The current command is done: at the next one, or at an end."""
    if state.undoing:
        return _undo(definition, state, state.step - 1)
    if state.step + 1 == len(definition.steps):
        return replace(state, status=Status.COMPLETED, waiting=False, due=None)
    return replace(state, status=Status.RUNNING, step=state.step + 1, attempt=0)


def _undo(definition: Definition, state: SagaState, step: int, reason: str = "") -> SagaState:
    """At the compensation of this step, or of the nearest one below that leaves something to undo, or at the end."""
    state = replace(state, undoing=True, attempt=0, reason=reason or state.reason)
    below = (number for number in range(step, -1, -1) if definition.steps[number].undo)
    if (number := next(below, None)) is None:
        return replace(state, status=Status.COMPENSATED, waiting=False, due=None)
    return replace(state, status=Status.COMPENSATING, step=number)


def _again(definition: Definition, state: SagaState, now: float, why: str) -> Turn:
    """The attempt came to nothing: pause and ask again, or give up."""
    retry = definition.undo_retry if state.undoing else definition.steps[state.step].retry
    if state.attempt < retry.attempts:
        due = now + retry.pause(state.attempt, f"{state.id} {current(definition, state)} {state.attempt}")
        return Turn(replace(state, waiting=False, due=_by(state, due)), why)
    reason = f"{why}, after {state.attempt} attempts"
    if state.undoing:
        return park(state, reason)
    return _go_on(definition, _undo(definition, state, state.step, reason), now, reason)


def _woken(definition: Definition, state: SagaState, now: float) -> Turn:
    if state.due is None or now < state.due:
        return Turn(state, "woken too early")
    if not state.undoing and now >= state.deadline:
        reason = "the saga is out of time"
        return _go_on(definition, _undo(definition, state, state.step, reason), now, reason)
    if state.waiting:
        return _again(definition, state, now, f"{current(definition, state)}: no answer in time")
    return _go_on(definition, state, now, "the pause is over")


def _told(definition: Definition, state: SagaState, verb: Verb, now: float) -> Turn:
    """Whoever tells sends no commands: the saga is due at once, and the worker that wakes it asks."""
    parked, ended = state.status is Status.PARKED, state.status in ENDED
    if verb is Verb.COMPENSATE and not ended and not state.undoing:
        moved = _undo(definition, state, state.step, "the operator's decision")
    elif verb is Verb.SKIP and parked:
        moved = _after_current(definition, state)
    elif verb is Verb.RETRY and parked:
        moved = replace(state, status=Status.COMPENSATING if state.undoing else Status.RUNNING)
    else:
        raise NotPossible(f"cannot {verb} saga {state.id!r}: it is {state.status}")
    if moved.status in MOVING:
        moved = replace(
            moved, attempt=0, waiting=False, due=now, deadline=max(state.deadline, now + definition.timeout)
        )
    return Turn(moved, f"operator: {verb}")


def _out_of_turn(state: SagaState, action: Action) -> Turn:
    if action in state.asked:
        return _late(state, action)
    return Turn(state, f"answer of {action}, which was never asked", stray=True)


def _late(state: SagaState, action: Action) -> Turn:
    return Turn(state, f"answer of {action} ignored: it comes again, or too late")
