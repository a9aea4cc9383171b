"""Commands and answers that nobody can use, between good ones: put aside as they came, and nobody dies of them."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
from saga.messaging import Header, command
from saga.orchestrator.machine import Status, Verb
from saga.orchestrator.operator import NoSuchMessage, discard, put_aside, resend, sagas, tell
from saga.order import Action, Order, Request, World, orders
from saga.services.host import Host
from saga.stage.foreign import odd
from saga.stage.in_process import Ensemble
from saga.transport import Inlet, NotSent, Outlet, restored

from shared import codec
from shared import kafka as kafka_helpers
from shared.postgres import Connection
from shared.servers.server import Endpoint

FIRST, SECOND, ODD = orders(31, 3, World())
SPOIL_DEFINITION = """
with new as (insert into definitions values ('spoilt', 1, '\\xfc'))
update sagas set definition = 'spoilt' where id = %s
"""
AWAY = Endpoint("kafka", "127.0.0.1:1", "yours", {"log_level": "2"})  # quiet: it is meant to be away
KEPT = "select key, value, headers from parked_messages order by position"


@dataclass
class Raw:
    """A message as its bytes are. `headers` are in place of the usual ones, or beside them."""

    value: bytes | None
    key: bytes | None = b"key"
    headers: dict[str, bytes | None] = field(default_factory=dict)


def request(order: bytes, action: Action = Action.PLACE) -> bytes:
    return b'{"saga":"odd","action":"%s","order":%s}' % (action.encode(), order)


GOOD = request(codec.encode(ODD))
COMMANDS = {
    **{name: Raw(request(order)) for name, order in odd(ODD).items()},
    "very deep nesting": Raw(GOOD[:-1] + b',"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "no body": Raw(b""),
    "a tombstone": Raw(None),
    "no key, and headers that are no text": Raw(b"\xff", None, {"id": b"\xfc", "x": None}),
    "no saga": Raw(GOOD.replace(b'"odd"', b'""')),
    "a saga with a NUL": Raw(GOOD.replace(b'"odd"', b'"\\u0000"')),
    "the command of another service": Raw(request(codec.encode(ODD), Action.CHARGE)),
    "a command that no service has": Raw(request(codec.encode(ODD), Action.CHECK)),
    "an answer to nobody": Raw(GOOD, headers={"reply-to": b"\xfc"}),
    "an answer to the broker itself": Raw(GOOD, headers={"reply-to": b"__consumer_offsets"}),
    "an answer to no topic": Raw(GOOD, headers={"reply-to": b"a\0b"}),
    "an id as long as a message": Raw(GOOD, headers={"id": b"x" * 600_000}),
    "a number that no column has": Raw(GOOD.replace(b'"quantity":', b'"quantity":9999999999')),
}


def send(stage: Ensemble, topic: str, raw: Raw, usual: Mapping[str, bytes | None] = MappingProxyType({})) -> None:
    stage.client.outlet.put(topic, raw.value, raw.key, list({**usual, **raw.headers}.items()))


def ask(stage: Ensemble, order: Order) -> None:
    stage.client.outlet.send([command(stage.office.topics, Request(order.id, Action.PLACE, order), 1, "test")])


def placed(connection: Connection) -> set[str]:
    return {order for (order,) in connection.execute("select id from orders")}


def kept(connection: Connection) -> list[Raw]:
    """What was put aside, as it came."""
    rows = connection.execute(KEPT).fetchall()
    return [Raw(value, key, dict(restored(headers))) for key, value, headers in rows]


def test_commands_that_nobody_can_use_are_put_aside_as_they_came_and_the_others_carried_out(stage: Ensemble) -> None:
    usual = {"id": b"odd", "correlation-id": b"odd", "reply-to": stage.office.topics.replies.encode()}
    topic, database = stage.office.topics.commands["orders"], stage.host.services.connections["orders"]
    ask(stage, FIRST)
    for raw in COMMANDS.values():
        send(stage, topic, raw, usual)
    ask(stage, SECOND)
    stage.client.outlet.flush()
    stage.until("all to be put aside", lambda: len(put_aside(database)) == len(COMMANDS), worker=False)
    stage.until("the others to be placed", lambda: placed(database) == {FIRST.id, SECOND.id}, worker=False)
    sent = [Raw(raw.value, raw.key, {**usual, **raw.headers}) for raw in COMMANDS.values()]
    assert sorted(kept(database), key=str) == sorted(sent, key=str)
    assert all(one.reason for one in put_aside(database))


def test_a_host_that_has_lost_its_place_reads_all_of_them_again_and_puts_each_aside_once(
    stage: Ensemble, kafka: Endpoint
) -> None:
    topic, database = stage.office.topics.commands["orders"], stage.host.services.connections["orders"]
    send(stage, topic, Raw(b"none"))
    ask(stage, FIRST)
    stage.client.outlet.flush()
    stage.until("it to be placed", lambda: placed(database) == {FIRST.id}, worker=False)
    again = kafka_helpers.read_all(kafka, topic)
    with closing(Inlet(kafka, [topic], {})) as inlet:
        Host(stage.host.services, inlet, stage.host.outlet).serve(topic, again)
    assert (len(again), len(put_aside(database))) == (2, 1)


def reply(saga: str, refused: bytes) -> bytes:
    return b'{"saga":"%s","action":"place-order","refused":%s}' % (saga.encode(), refused)


ANSWERS = {
    "a Latin-1 byte": rb'"gesch\xfctzt"'.replace(rb"\xfc", b"\xfc"),
    "very deep nesting": b"[" * 50_000,
    "half a surrogate pair": rb'"\ud83d"',
    "a NUL": rb'"\u0000"',
    "a number for a text": b"5",
    "no end": b'"',
}


def test_a_saga_whose_answer_nobody_can_read_waits_for_the_operator_and_the_others_go_on(stage: Ensemble) -> None:
    begun, replies = list(orders(37, len(ANSWERS) + 1, World())), stage.office.topics.replies
    for order in begun:
        stage.client.start(order)
    for order, refused in zip(begun, ANSWERS.values(), strict=False):
        asked = {
            str(Header.CORRELATION): order.id.encode(),
            str(Header.CAUSATION): f"{order.id}:place-order#1".encode(),
        }
        send(stage, replies, Raw(reply(order.id, refused), order.id.encode()), asked)
    *odd_ones, fine = (order.id for order in begun)
    stage.until("them to wait", lambda: waiting(stage).keys() == set(odd_ones), host=False)
    assert all(
        "nobody can read the answer of place-order: not a reply: " in reason for reason in waiting(stage).values()
    )
    assert len(stage.parked_messages()) == len(ANSWERS)
    assert stage.play(fine) == Status.COMPLETED
    for saga in odd_ones:
        tell(stage.connection, saga, Verb.RETRY)
        assert stage.play(saga) == Status.COMPLETED


def waiting(stage: Ensemble) -> dict[str, str]:
    """Saga -> why it waits for the operator."""
    return {one.id: one.reason for one in sagas(stage.connection, [Status.PARKED])}


@pytest.mark.parametrize(
    "raw",
    [
        Raw(None, FIRST.id.encode()),
        Raw(b"", None, {"correlation-id": FIRST.id.encode(), "causation-id": b"\xfc"}),
    ],
    ids=["a tombstone that only its key tells of", "an empty answer that only its headers tell of"],
)
def test_whatever_tells_whose_answer_it_is_will_do(stage: Ensemble, raw: Raw) -> None:
    stage.client.start(FIRST)
    send(stage, stage.office.topics.replies, raw)
    stage.until("it to wait", lambda: waiting(stage).keys() == {FIRST.id}, host=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"correlation-id": FIRST.id.encode(), "causation-id": f"{FIRST.id}:place-order#7".encode()},
        {"correlation-id": b"a\0b"},
        {"correlation-id": b"nobody"},
    ],
    ids=["of another attempt", "of a saga with a NUL", "of no saga"],
)
def test_an_answer_that_nobody_can_read_and_nobody_waits_for_is_put_aside_alone(
    stage: Ensemble, headers: dict[str, bytes | None]
) -> None:
    stage.client.start(FIRST)
    send(stage, stage.office.topics.replies, Raw(b"{", None, headers))
    stage.until("it to be put aside", lambda: len(stage.parked_messages()) == 1, host=False)
    assert stage.play(FIRST.id) == Status.COMPLETED


def test_a_busy_answer_with_an_endless_number_is_put_aside(stage: Ensemble) -> None:
    stage.client.start(FIRST)
    headers = {"busy": b"busy", "causation-id": f"{FIRST.id}:place-order#{'1' * 5_000}".encode()}
    send(stage, stage.office.topics.replies, Raw(reply(FIRST.id, b'""')), headers)
    stage.until("it to be put aside", lambda: len(stage.parked_messages()) == 1, host=False)
    assert stage.play(FIRST.id) == Status.COMPLETED


@pytest.mark.parametrize(
    "spoil",
    [
        "update sagas set payload = payload || '\\xfc'::bytea where id = %s",
        "update sagas set step = 99 where id = %s",
        "update sagas set undoing = true, step = -1 where id = %s",
        SPOIL_DEFINITION,
    ],
    ids=["a byte in its order", "a step that is none", "a compensation that is none", "a byte in its definition"],
)
def test_a_saga_whose_row_is_spoilt_waits_for_the_operator_and_the_others_go_on(stage: Ensemble, spoil: str) -> None:
    for order in (FIRST, ODD, SECOND):
        stage.client.start(order)
    stage.connection.execute(spoil, [ODD.id])
    stage.orchestrator.recover()  # as a worker does that starts anew
    assert [stage.play(order.id) for order in (FIRST, SECOND)] == [Status.COMPLETED] * 2
    assert stage.play(ODD.id) == Status.PARKED
    assert waiting(stage)[ODD.id]


def test_a_command_whose_answer_in_the_inbox_nobody_can_read_is_put_aside(stage: Ensemble) -> None:
    database = stage.host.services.connections["orders"]
    database.execute("insert into inbox values (%s, '\\xfc')", [f"{ODD.id}:place-order"])
    for order in (FIRST, ODD, SECOND):
        ask(stage, order)
    stage.until("it to be put aside", lambda: len(put_aside(database)) == 1, worker=False)
    stage.until("the others to be placed", lambda: placed(database) == {FIRST.id, SECOND.id}, worker=False)
    assert put_aside(database)[0].reason.startswith("NotReadable")


def test_the_operator_sends_again_what_was_put_aside_or_drops_it(stage: Ensemble, kafka: Endpoint) -> None:
    topic, database = stage.office.topics.commands["orders"], stage.host.services.connections["orders"]
    for number in range(2):
        send(stage, topic, Raw(b"\xfc", b"\xfc", {"x": b"\xfc", "number": str(number).encode(), "none": None}))
    stage.client.outlet.flush()
    first, second = stage.until(
        "them", lambda: put_aside(database) if len(put_aside(database)) == 2 else [], worker=False
    )
    resend(database, stage.client.outlet, first.number)
    discard(database, second.number)
    [message] = kafka_helpers.read_all(kafka, topic)[2:]
    assert (message.value(), message.key(), dict(message.headers() or [])["x"]) == (b"\xfc", b"\xfc", b"\xfc")
    assert put_aside(database) == []
    with pytest.raises(NoSuchMessage, match=f"no message {second.number} was put aside"):
        discard(database, second.number)


def test_what_cannot_be_sent_again_stays_put_aside(stage: Ensemble) -> None:
    database = stage.host.services.connections["orders"]
    send(stage, stage.office.topics.commands["orders"], Raw(b"none"))
    stage.until("it to be put aside", lambda: len(put_aside(database)) == 1, worker=False)
    [kept] = put_aside(database)
    with closing(Outlet(AWAY, settings={"message_timeout_ms": 300})) as outlet, pytest.raises(NotSent):
        resend(database, outlet, kept.number)
    assert put_aside(database) == [kept]
