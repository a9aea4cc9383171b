"""A diagram puts marks in their lanes and draws arrows forward, between the right ones."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest

from shared.history import Action, History, Op, Outcome
from shared.report.diagram import Diagram
from shared.report.marks import State
from shared.report.spacetime import diagram
from shared.tests.report import samples

MS = 1_000_000


def drawn(ops: Iterable[Op]) -> Diagram:
    history = History(ops)
    picture = diagram(history, samples.found(history))
    assert picture is not None
    return picture


def op(at: int, who: str, action: Action, outcome: Outcome = Outcome.OK, value: str = "e1", offset: int = -1) -> Op:
    return Op(at * MS, who, action, outcome, value, offset=offset)


SAMPLES: list[Callable[[], Iterator[Op]]] = [
    samples.relay_killed,
    samples.dual_write,
    samples.paused_broker,
    samples.crowd,
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_marks_lie_on_the_lane_of_their_process_and_never_on_each_other(sample: Callable[[], Iterator[Op]]) -> None:
    picture = drawn(sample())
    spots = sorted((mark.lane, mark.y) for mark in picture.marks)
    near = [one for one, two in pairwise(spots) if one[0] == two[0] and two[1] - one[1] < 14.9]
    assert near == []
    assert all(mark.x == picture.lanes[mark.lane].x for mark in picture.marks)


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_arrow_points_back_in_time(sample: Callable[[], Iterator[Op]]) -> None:
    picture = drawn(sample())
    assert picture.arrows
    assert all(arrow.y1 <= arrow.y2 for arrow in picture.arrows)


def test_arrows_follow_an_event_from_write_to_effect() -> None:
    steps = (
        (0, "writer", Action.WRITE),
        (5, "relay", Action.SEND),
        (9, "reader", Action.DELIVER),
        (9, "reader", Action.EFFECT),
    )
    picture = drawn(op(at, process, action) for at, process, action in steps)
    writer, relay, reader = (lane.x for lane in picture.lanes)
    assert [(arrow.x1, arrow.x2) for arrow in picture.arrows] == [(writer, relay), (relay, reader), (reader, reader)]
    assert [arrow.kind for arrow in picture.arrows] == ["message", "message", "local"]


def test_a_second_delivery_comes_from_the_second_send() -> None:
    picture = drawn(
        [
            op(0, "writer", Action.WRITE),
            op(1, "relay", Action.SEND, offset=1),
            op(2, "reader", Action.DELIVER, offset=1),
            op(3, "relay", Action.SEND, offset=2),
            op(4, "reader", Action.DELIVER, offset=2),
        ]
    )
    sends = [mark.y for mark in picture.marks if mark.action == "send"]
    assert [arrow.y1 for arrow in picture.arrows if arrow.x1 == picture.lanes[1].x] == sends


def test_a_lost_event_ends_in_a_broken_arrow_at_its_last_trace() -> None:
    picture = drawn(samples.dual_write())
    (broken,) = (arrow for arrow in picture.arrows if arrow.kind == "lost")
    (mark,) = (mark for mark in picture.marks if mark.number == broken.number)
    assert (broken.x1, broken.y1, mark.odd) == (mark.x, mark.y, True)


def test_anomalies_are_marked_where_the_checker_found_them() -> None:
    picture = drawn(samples.relay_killed())
    odd = [mark for mark in picture.marks if mark.odd]
    assert [(mark.action, mark.anomaly) for mark in odd] == [("deliver", "duplicate delivery")] * 3


def test_a_mark_says_how_its_attempt_ended() -> None:
    ends = {"a": Outcome.OK, "b": Outcome.FAIL, "c": Outcome.UNKNOWN}
    begun = [op(0, "w", Action.WRITE, Outcome.INVOKE, value) for value in "abcd"]
    picture = drawn([*begun, *(op(9, "w", Action.WRITE, end, value) for value, end in ends.items())])
    states = {mark.details[1][1]: mark.state for mark in picture.marks}
    assert states == {"a": State.DONE, "b": State.FAILED, "c": State.UNKNOWN, "d": State.OPEN}


def test_a_lasting_fault_is_a_bar_and_a_kill_leaves_the_lane_dead_until_its_process_is_back() -> None:
    (pause,) = drawn(samples.paused_broker()).faults
    assert pause.end > pause.y
    picture = drawn(samples.relay_killed())
    (kill,) = picture.faults
    later = [mark.start for mark in picture.marks if mark.lane == kill.lane and mark.start > kill.y]
    assert (kill.end, kill.down) == (kill.y, min(later))


def test_a_killed_process_that_is_back_is_not_drawn_dead_for_what_the_picture_leaves_out() -> None:
    picture = drawn(samples.crowd())
    kill = next(fault for fault in picture.faults if "SIGKILL" in fault.label)
    assert kill.y < kill.down < kill.y + 60


def test_long_silence_is_cut_out_and_said() -> None:
    picture = drawn(op(at, "w", Action.WRITE, value=f"e{at}") for at in (0, 1, 2, 3, 4, 9_000))
    assert [cut.text for cut in picture.breaks] == ["8,996\N{NO-BREAK SPACE}ms later"]
    assert picture.height < 400


def test_lanes_follow_the_way_of_an_event_and_servers_lie_between() -> None:
    picture = drawn(samples.paused_broker())
    assert [lane.process for lane in picture.lanes] == ["order-service", "relay", "kafka", "billing"]


def test_a_history_without_operations_has_no_picture() -> None:
    assert diagram(History([]), ()) is None


def test_a_long_history_makes_a_small_picture() -> None:
    ops = [op(at, "reader", Action.DELIVER, value=f"e{at}") for at in range(200_000)]
    picture = drawn([*ops, Op(100_000 * MS + 1, "reader", Action.FAULT, Outcome.OK, note="pause")])
    assert len(picture.marks) <= 160
    assert picture.excerpt.all_values == 200_000
