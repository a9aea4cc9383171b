"""An anomaly is told in plain words: the event, what became of it, and the window in which it happened."""

import pytest

from shared.checkers import Kind
from shared.history import Action, History, Op, Outcome
from shared.record import Finding
from shared.report.past import Past
from shared.report.sentences import befell, sentence
from shared.tests.report import samples

MS = 1_000_000
WRITE, SEND, DELIVER, EFFECT, READ, FAULT = Action
INVOKE, OK, FAIL, UNKNOWN = Outcome
NBSP = "\N{NO-BREAK SPACE}"


def op(
    ms: float, process: str, action: Action, outcome: Outcome = OK, value: str = "e1", seq: int = 1, **at: int
) -> Op:
    where = {"partition": 0, **at} if at else {}
    return Op(int(ms * MS), process, action, outcome, value, "order-9", seq, **where)  # type: ignore[arg-type]


def fault(ms: float, process: str, note: str, until: float = 0) -> Op:
    return Op(int(ms * MS), process, FAULT, OK, note=note, until=int(until * MS))


def told(kind: Kind, *ops: Op) -> str:
    """What the checkers find of one kind, in words; a sentence a line."""
    history = History(ops)
    findings = [finding for finding in samples.found(history) if finding.kind == kind]
    past = Past.of(history, findings)
    return "\n".join(sentence(finding, past).replace(NBSP, " ") for finding in findings)


def test_a_lost_event_names_the_fault_that_came_next() -> None:
    ops = op(1, "shop", WRITE), fault(4.4, "relay", "SIGKILL between publish and mark"), fault(9, "shop", "SIGKILL")
    assert told(Kind.LOST, *ops) == (
        "Event e1 of order-9 was written by shop and never delivered; "
        "3.4 ms later relay was killed between publish and mark."
    )


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (INVOKE, ": its send by relay never ended; nothing was delivered after it."),
        (UNKNOWN, ": nobody knows whether its send by relay arrived; nothing was delivered after it."),
        (FAIL, ": its send by relay failed; nothing was delivered after it."),
        (OK, ", though relay had sent it; nothing was delivered after it."),
    ],
)
def test_a_lost_event_that_was_sent_tells_how_its_send_ended(end: Outcome, words: str) -> None:
    text = told(Kind.LOST, op(1, "shop", WRITE), op(2, "relay", SEND, end))
    assert text == f"Event e1 of order-9 was written by shop and never delivered{words}"


def test_an_event_lost_without_a_fault_lies_between_two_deliveries() -> None:
    ops = [op(n, "shop", WRITE, value=f"e{n}") for n in (1, 2, 3)]
    ops += [op(1.5, "reader", DELIVER), op(4, "reader", DELIVER, value="e3")]
    text = told(Kind.LOST, *ops)
    assert text.endswith("; meanwhile reader went on from event e1 of order-9 to event e3 of order-9.")


def test_a_doubled_delivery_names_both_senders_and_the_fault_in_between() -> None:
    ops = op(1, "shop", WRITE), op(2, "relay-1", SEND), op(3, "reader", DELIVER)
    again = fault(4, "relay-1", "SIGKILL after publish"), op(5, "relay-2", SEND), op(6, "reader", DELIVER)
    assert told(Kind.DUPLICATE_DELIVERY, *ops, *again) == (
        "Event e1 of order-9 was delivered to reader again, 3 ms after it had come to reader; it had been sent 2 "
        "times, by relay-1 and relay-2; in between relay-1 was killed after publish."
    )


def test_a_fault_before_both_deliveries_is_told_when_it_came_after_the_write() -> None:
    hits = fault(0, "shop", "SIGKILL"), op(1, "shop", WRITE), fault(4, "relay", "SIGKILL after publish")
    text = told(Kind.DUPLICATE_DELIVERY, *hits, op(6, "reader", DELIVER), op(7, "reader", DELIVER))
    assert text.endswith("; 2 ms before the first of the two relay was killed after publish.")


def test_a_doubled_effect_names_the_first_one_and_its_own_process_fault() -> None:
    hits = fault(2, "reader", "SIGKILL after the effect"), fault(3, "kafka", "SIGSTOP", until=4)
    ops = op(0, "shop", WRITE), op(1, "reader", EFFECT), *hits, op(6, "reader", EFFECT)
    assert told(Kind.DUPLICATE_EFFECT, *ops) == (
        "Event e1 of order-9 took effect in reader again, 5 ms after the effect in reader; "
        "in between reader was killed after the effect."
    )


def test_a_reordered_event_names_the_one_that_came_sooner() -> None:
    ops = op(1, "reader", DELIVER, value="e2", seq=2), op(3, "reader", DELIVER)
    assert told(Kind.REORDERED, *ops) == (
        "Event e1 of order-9 was delivered to reader too late: number 1 of order-9 after number 2; "
        "event e2, number 2, had come 2 ms before."
    )


def test_a_reader_that_skips_or_goes_back_names_where_it_was() -> None:
    ops = [op(n, "relay", SEND, value=f"e{n}", offset=n) for n in (1, 2, 3)]
    ops += [op(5, "reader", DELIVER, offset=1), op(7, "reader", DELIVER, value="e3", offset=3)]
    assert told(Kind.SKIPPED, *ops) == (
        "Event e3 of order-9 was delivered to reader, which had gone from offset 1 to 3, over 1 records, "
        "2 ms after event e1 of order-9."
    )
    back = fault(8, "reader", "SIGSTOP", until=8.5), op(9, "reader", DELIVER, offset=1)
    assert told(Kind.BACKWARDS, *ops, *back) == (
        "Event e1 of order-9 was delivered to reader, which had gone from offset 3 back to 1, 2 ms after event e3 "
        "of order-9; in between reader was paused for 0.5 ms."
    )


def test_an_aborted_read_says_when_the_write_failed() -> None:
    ops = op(1, "shop", WRITE, INVOKE), op(2, "reader", DELIVER), op(3, "shop", WRITE, FAIL)
    assert told(Kind.ABORTED_READ, *ops) == (
        "Event e1 of order-9 was delivered to reader, and its write certainly failed: 1 ms later, in shop."
    )


def test_a_phantom_tells_how_its_write_ended_or_that_there_was_none() -> None:
    ops = op(1, "shop", WRITE, INVOKE), fault(2, "shop", "SIGKILL before-commit"), op(3, "reader", DELIVER)
    closing = Op(9 * MS, "judge", READ, OK)
    assert told(Kind.PHANTOM, *ops, closing) == (
        "Event e1 of order-9 was delivered to reader, but the final read did not find its row; its write by shop "
        "never ended: 1 ms after it began, shop was killed before commit."
    )
    assert told(Kind.PHANTOM, op(1, "relay", SEND), op(3, "reader", DELIVER)) == (
        "Event e1 of order-9 was delivered to reader, and nobody wrote it; relay sent it."
    )


@pytest.mark.parametrize("kind", Kind)
def test_without_a_history_every_kind_is_still_a_sentence(kind: Kind) -> None:
    finding = Finding(kind=kind, value="e1", key="order-9", process="reader", at=1, detail="from offset 3 to 7")
    text = sentence(finding)
    assert text.startswith("Event e1 of order-9 was ") or text.startswith("Event e1 of order-9 took effect ")
    assert (text.endswith("."), "{" in text) == (True, False)


def test_a_finding_of_which_the_history_knows_nothing_is_told_without_a_window() -> None:
    past = Past.of(History([]), [])
    for kind in Kind:
        finding = Finding(kind=kind, value="gone", key="", process="reader", at=1, detail="some detail")
        assert sentence(finding, past) == sentence(finding)


def test_the_id_of_an_event_is_short_enough_to_be_read() -> None:
    value = "019b76da-a802-71d3-b5ed-92890ccd73b7"
    finding = Finding(kind="lost", value=value, key="order-1", process="shop", at=1, detail="")
    assert sentence(finding).startswith("Event 019b76da-a802…73b7 of order-1 was written by shop")


@pytest.mark.parametrize(
    ("note", "until", "text"),
    [
        ("SIGKILL", 0, "kafka was killed"),
        ("SIGKILL, restart", 0, "kafka was killed and started again"),
        ("SIGKILL, restart", 2101, "kafka was killed and down for 2.1 s"),
        ("SIGKILL answered, not noted", 0, "kafka was killed (answered, not noted)"),
        ("SIGSTOP", 901, "kafka was paused for 900 ms"),
        ("cut", 31, "kafka was cut off for 30 ms"),
        ("slow by 5 ms", 11, "kafka was slow by 5 ms for 10 ms"),
        ("nobody reads the slot", 0, "kafka was hit by a fault (nobody reads the slot)"),
    ],
)
def test_a_fault_is_told_by_what_it_did(note: str, until: float, text: str) -> None:
    assert befell(fault(1, "kafka", note, until)).replace(NBSP, " ") == text
