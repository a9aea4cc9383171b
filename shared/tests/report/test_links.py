"""What gave rise to what: never a later attempt, never one that certainly did not happen."""

from shared.history import Action, Op, Outcome
from shared.report.attempts import attempts
from shared.report.links import links


def linked(*ops: Op) -> list[tuple[str, str]]:
    """Links as (cause, consequence), each named by its process."""
    tried = attempts(ops)
    return [(tried[link.source].op.process, tried[link.target].op.process) for link in links(tried)]


def op(at: int, process: str, action: Action, outcome: Outcome = Outcome.OK, offset: int = -1) -> Op:
    return Op(at, process, action, outcome, "e1", topic="orders", partition=0, offset=offset)


def test_a_send_before_the_write_does_not_come_from_it() -> None:
    assert linked(op(1, "relay", Action.SEND), op(2, "writer", Action.WRITE)) == []


def test_a_send_that_certainly_failed_delivers_nothing() -> None:
    failed, second = op(1, "relay-1", Action.SEND, Outcome.FAIL), op(2, "relay-2", Action.SEND)
    assert linked(failed, second, op(3, "reader", Action.DELIVER)) == [("relay-2", "reader")]


def test_an_unfinished_send_may_deliver_all_the_same() -> None:
    begun = op(1, "relay", Action.SEND, Outcome.INVOKE)
    assert linked(begun, op(3, "reader", Action.DELIVER, offset=9)) == [("relay", "reader")]


def test_the_offset_tells_which_send_was_delivered() -> None:
    sends = (op(1, "relay-1", Action.SEND, offset=1), op(2, "relay-2", Action.SEND, offset=2))
    assert linked(*sends, op(3, "reader", Action.DELIVER, offset=2)) == [("relay-2", "reader")]


def test_where_nobody_recorded_a_send_the_delivery_comes_from_the_write() -> None:
    assert linked(op(1, "writer", Action.WRITE), op(3, "reader", Action.DELIVER)) == [("writer", "reader")]


def test_an_effect_comes_from_the_delivery_in_its_own_process() -> None:
    received = (op(1, "one", Action.DELIVER), op(2, "two", Action.DELIVER))
    assert linked(*received, op(3, "one", Action.EFFECT)) == [("one", "one")]
