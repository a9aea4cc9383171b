"""Our orchestrator on real servers: what becomes of an order, whatever is lost, doubled, late, broken or killed."""

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from saga.messaging import Header, Outgoing, Topics
from saga.orchestrator.definition import Definition, DefinitionError, Retry, timed
from saga.orchestrator.machine import Status, Verb, begin
from saga.orchestrator.office import Client, Office, client
from saga.orchestrator.operator import put_aside, tell
from saga.orchestrator.shares import Shares, each_reads_its_own, stood_in_for, there
from saga.orchestrator.store import Saga, Store, create, publish
from saga.order import STEPS, Action, Order, Outcome, Reply, World, orders
from saga.services.host import prepare
from saga.services.invariant import Ending, judge
from saga.stage.engines import Ended, Site
from saga.stage.engines.own import ENDED, opened
from saga.stage.fates import Fate, FatedShop, Fates
from saga.stage.in_process import Ensemble
from saga.stage.killing import RecordedKill
from saga.stage.processes import host, work
from saga.transport import Inlet
from saga.windows import EffectWindow, HostWindow, WorkerWindow

from shared import kafka as kafka_helpers
from shared.checkers import duplicate_effect
from shared.errors import ConfigurationError
from shared.faults import require
from shared.history import History
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker


def asked(stage: Ensemble, saga: str) -> list[str]:
    row = stage.connection.execute("select asked from sagas where id = %s", [saga]).fetchone()
    return str(row[0]).split() if row else []


def send(stage: Ensemble, topic: str, value: bytes, saga: str = "order", *more: tuple[str, str]) -> None:
    outgoing = Outgoing(topic, saga, value, "by hand", "nothing", more)
    stage.client.outlet.send([outgoing])
    stage.client.outlet.flush()


def test_an_order_is_completed_in_all_services(stage: Ensemble, order: Order) -> None:
    assert stage.client.start(order)
    assert stage.play(order.id) == Status.COMPLETED
    assert judge(stage.shop).endings == {order.id: Ending.COMPLETE}


def test_a_saga_whose_client_died_before_it_could_ask_is_asked_for_by_its_time_out(
    stage: Ensemble, order: Order
) -> None:
    definition, turn = stage.client.definition, begin(stage.client.definition, order.id, time.time())
    saga = Saga(turn.state, definition.name, definition.version, msgspec.json.encode(order))
    assert stage.client.store.add(saga, turn.note)  # and nothing is sent
    assert stage.play(order.id) == Status.COMPLETED
    assert any(note.startswith("the pause is over: ask for place-order") for note in stage.notes(order.id))


def test_the_same_saga_is_begun_once(stage: Ensemble, order: Order) -> None:
    assert [stage.client.start(order) for _ in range(3)] == [True, False, False]
    assert len(stage.notes(order.id)) == 1


def test_a_refused_order_is_undone_in_reverse(stage: Ensemble, order: Order) -> None:
    stage.fate({(order.id, Action.SHIP): Fate.REFUSED})
    stage.client.start(order)
    assert stage.play(order.id) == Status.COMPENSATED
    assert asked(stage, order.id) == [*STEPS, Action.REFUND, Action.RELEASE, Action.CANCEL]
    assert judge(stage.shop).endings == {order.id: Ending.COMPENSATED}


@pytest.mark.parametrize("fate", [Fate.ANSWER_LOST, Fate.TRANSIENT])
def test_what_fails_for_a_while_is_asked_again_and_done_once(fate: Fate, stage: Ensemble, order: Order) -> None:
    stage.fate({(order.id, Action.CHARGE): fate})
    stage.client.start(order)
    assert stage.play(order.id) == Status.COMPLETED
    assert any("attempt 2" in note for note in stage.notes(order.id))
    assert judge(stage.shop).violations == []


def test_a_busy_answer_that_comes_again_does_not_use_up_the_next_attempt(
    stage: Ensemble, order: Order, quick: Definition
) -> None:
    waits_long = msgspec.structs.replace(timed(quick, attempt=30.0, retry=Retry(first=0.02), whole=120.0), version=2)
    publish(stage.connection, waits_long)
    replace(stage.client, definition=waits_long).start(order)
    reply = msgspec.json.encode(Reply(order.id, Action.PLACE))
    cause, busy = f"{order.id}:place-order#1", ((str(Header.BUSY), "busy"),)
    answer = [Outgoing(stage.office.topics.replies, order.id, reply, "by hand", cause, busy)]
    stage.client.outlet.send(answer)
    stage.until("attempt 2", lambda: "attempt 2" in stage.notes(order.id)[-1], host=False)
    stage.client.outlet.send(answer)
    assert stage.until("it", lambda: stage.notes(order.id)[3:], host=False) == [
        "answer of place-order ignored: it comes again, or too late"
    ]
    assert stage.play(order.id) == Status.COMPLETED


def test_replies_that_come_again_change_nothing(stage: Ensemble, order: Order, kafka: Endpoint) -> None:
    stage.client.start(order)
    stage.play(order.id)
    replies = kafka_helpers.read_all(kafka, stage.office.topics.replies)
    for message in replies:
        send(stage, stage.office.topics.replies, message.value() or b"", order.id)
    end = sum(kafka_helpers.end_offsets(kafka, stage.office.topics.replies).values())
    stage.until("the copies to be read", lambda: sum(stage.orchestrator.store.offsets().values()) >= end)
    assert sum("ignored" in note for note in stage.notes(order.id)) >= len(replies) > 3
    assert (stage.status(order.id), stage.parked_messages()) == (Status.COMPLETED, [])


def test_a_step_whose_answer_comes_too_late_is_undone(stage: Ensemble, order: Order, quick: Definition) -> None:
    impatient = timed(quick, attempt=0.05, retry=Retry(attempts=1), whole=20.0)
    impatient = msgspec.structs.replace(impatient, version=2, undo_timeout=2.0)
    publish(stage.connection, impatient)
    replace(stage.client, definition=impatient).start(order)
    stage.until("the saga to give up", lambda: stage.status(order.id) == Status.COMPENSATING, host=False)
    assert stage.play(order.id) == Status.COMPENSATED  # the host does the step only now, and then undoes it
    assert "answer of place-order ignored: it comes again, or too late" in stage.notes(order.id)
    assert judge(stage.shop).endings == {order.id: Ending.COMPENSATED}


def test_replies_that_cannot_be_used_are_put_aside_with_the_reason(stage: Ensemble, order: Order) -> None:
    stage.client.start(order)
    replies = stage.office.topics.replies
    send(stage, replies, b"nonsense")
    send(stage, replies, msgspec.json.encode(Reply("unknown", Action.PLACE)))
    send(stage, replies, msgspec.json.encode(Reply("NUL\0", Action.PLACE)))
    send(stage, replies, msgspec.json.encode(Reply(order.id, Action.SHIP)))
    send(stage, replies, msgspec.json.encode(Reply(order.id, Action.PLACE)), order.id, (str(Header.BUSY), "busy"))
    stage.until("5 messages put aside", lambda: len(stage.parked_messages()) == 5, host=False)
    reasons = "; ".join(stage.parked_messages())
    for reason in ("not a reply", "there is no saga 'unknown'", "has a NUL", "ship-order, which was never asked"):
        assert reason in reasons
    assert "the reply does not say which attempt it answers: 'nothing'" in reasons
    assert {put.value for put in put_aside(stage.connection)} >= {b"nonsense"}
    assert stage.play(order.id) == Status.COMPLETED


def test_commands_that_cannot_be_used_are_put_aside_with_the_reason(stage: Ensemble, order: Order) -> None:
    commands, to = stage.office.topics.commands["orders"], (str(Header.REPLY_TO), "no.such.topic")
    request = msgspec.json.encode({"saga": order.id, "action": "place-order", "order": order})
    send(stage, commands, b"nonsense")
    send(stage, commands, request)
    send(stage, commands, request, order.id, to)
    aside = stage.host.services.connections["orders"]
    found = stage.until("3 commands put aside", lambda: put_aside(aside) if len(put_aside(aside)) == 3 else [])
    assert {put.reason.split(":")[0] for put in found} == {
        "not a request",
        "the command does not say where its answer goes",
        "answers to topic 'no.such.topic' cannot be sent",
    }
    assert judge(stage.shop).endings == {}


def test_a_command_that_the_database_cannot_take_is_put_aside_and_the_order_undone(
    stage: Ensemble, order: Order, quick: Definition
) -> None:
    asks_once = msgspec.structs.replace(timed(quick, attempt=0.3, retry=Retry(attempts=1), whole=120.0), version=2)
    publish(stage.connection, asks_once)
    absurd = Order(order.id, order.customer, order.product, 10**12, order.cents)
    replace(stage.client, definition=asks_once).start(absurd)
    assert stage.play(order.id) == Status.COMPENSATED
    [*_, last] = put_aside(stage.host.services.connections["orders"])
    assert last.reason.startswith("NumericValueOutOfRange")


def test_a_saga_whose_order_cannot_be_read_is_parked_and_goes_on_when_it_can(stage: Ensemble, order: Order) -> None:
    stage.client.start(order)
    [(payload,)] = stage.connection.execute("select payload from sagas").fetchall()
    stage.connection.execute("update sagas set payload = %s", [b'{"id": "of a newer version"}'])
    assert stage.play(order.id) == Status.PARKED
    assert "the order of the saga cannot be read" in stage.notes(order.id)[-1]
    stage.connection.execute("update sagas set payload = %s", [payload])
    tell(stage.connection, order.id, Verb.RETRY)
    assert stage.play(order.id) == Status.COMPLETED


def test_a_saga_of_a_definition_that_is_not_there_is_parked(stage: Ensemble, order: Order) -> None:
    stage.client.start(order)
    stage.connection.execute("update sagas set version = 7")
    assert stage.play(order.id) == Status.PARKED
    assert "there is no version 7 of it" in stage.notes(order.id)[-1]


def test_a_definition_that_is_used_is_not_changed(stage: Ensemble, quick: Definition) -> None:
    publish(stage.connection, quick)
    with pytest.raises(DefinitionError, match="count the version up"):
        publish(stage.connection, msgspec.structs.replace(quick, timeout=1.0))


def test_a_compensation_that_fails_for_good_waits_for_the_operator_and_the_rest_stays_undone(
    stage: Ensemble, order: Order
) -> None:
    given_up_soon = msgspec.structs.replace(
        stage.client.definition, version=2, undo_timeout=10.0, undo_retry=Retry(attempts=2, first=0.01)
    )
    publish(stage.connection, given_up_soon)
    stage.fate({(order.id, Action.SHIP): Fate.REFUSED, (order.id, Action.RELEASE): Fate.BROKEN})
    replace(stage.client, definition=given_up_soon).start(order)
    assert stage.play(order.id) == Status.PARKED
    assert "release-stock" in stage.notes(order.id)[-1]
    [violation] = judge(stage.shop).violations
    assert "payments refunded" in violation and "stock reserved" in violation  # noqa: PT018
    tell(stage.connection, order.id, Verb.SKIP)
    assert stage.play(order.id) == Status.COMPENSATED


def test_a_due_saga_is_woken_by_one_worker(stage: Ensemble, order: Order) -> None:
    stage.client.start(order)
    stage.connection.execute("update sagas set due = now() - interval '1 second'")
    with (
        connect(stage.office.conninfo) as one,
        connect(stage.office.conninfo) as other,
        one.transaction(),
        other.transaction(),
    ):
        due = [list(Store(connection).due(2e9, 10)) for connection in (one, other)]
    assert due == [[order.id], []]


@pytest.fixture
def patient(quick: Definition) -> Definition:
    """In which nothing ever times out: what goes on after a kill does so by recovery."""
    return timed(quick, attempt=600.0, retry=Retry(), whole=600.0)


@pytest.fixture
def office(schema: str, kafka: Endpoint, topics: Topics, shop: FatedShop, patient: Definition) -> Office:
    """An orchestrator of which no process runs yet."""
    create(schema, patient)
    prepare(shop)
    return Office(schema, kafka, topics)


def start(begin: Client, number: int, count: int = 5) -> list[str]:
    """Begin the orders of so many a round; returns their ids."""
    return [order.id for order in orders(number, count, World()) if begin.start(order)]


def await_end(office: Office, sagas: list[str]) -> None:
    with connect(office.conninfo) as connection:
        until("the sagas to end", lambda: len(connection.execute(ENDED, [sagas]).fetchall()) == len(sagas))


@pytest.mark.fault
def test_a_worker_that_is_killed_in_any_window_is_continued_by_the_next(
    office: Office, shop: FatedShop, patient: Definition, tmp_path: Path
) -> None:
    history, sagas = tmp_path / "history.jsonl", list[str]()
    hosting = Worker("host", tmp_path / "host.log", host, shop, office.topics, office.broker)
    with hosting, client(office, patient) as begin:
        for number, window in enumerate(WorkerWindow):
            sagas += start(begin, number)
            killed = Worker(
                "worker", tmp_path / "worker.log", work, office, 0, RecordedKill(window, nth=2, history=history)
            ).start()
            assert killed.wait() == -9
        with Worker("worker", tmp_path / "worker.log", work, office):
            await_end(office, sagas)
    for window in WorkerWindow:
        require(History.read(history), f"SIGKILL {window}")
    assert (judge(shop).violations, judge(shop).count(Ending.COMPLETE)) == ([], len(sagas))


@pytest.mark.fault
def test_a_host_that_is_killed_in_any_window_does_everything_once(
    office: Office, shop: FatedShop, patient: Definition, tmp_path: Path
) -> None:
    history, sagas, services = tmp_path / "history.jsonl", list[str](), tuple(shop.conninfos)
    with Worker("worker", tmp_path / "worker.log", work, office), client(office, patient) as begin:
        for number, window in enumerate(HostWindow):
            sagas += start(begin, number)
            kill = RecordedKill(window, nth=2, history=history)
            arguments = (host, shop, office.topics, office.broker, services, kill, history)
            assert Worker("host", tmp_path / "host.log", *arguments).start().wait() == -9
        with Worker("host", tmp_path / "host.log", *arguments[:-2], None, history):
            await_end(office, sagas)
    assert len(History.read(history).faults) == len(HostWindow)
    assert duplicate_effect(History.read(history)) == []
    assert (judge(shop).violations, judge(shop).count(Ending.COMPLETE)) == ([], len(sagas))


def test_a_worker_reads_for_one_that_is_gone_until_it_is_back(
    schema: str, kafka: Endpoint, topics: Topics, quick: Definition
) -> None:
    create(schema, quick)
    with connect(schema) as mine, closing(Inlet(kafka, [topics.replies], {}, 0, 2)) as inlet:
        shares = Shares(Store(mine, 0), inlet, 0)
        assert shares.look() == {0, 1}
        with connect(schema) as other, closing(Inlet(kafka, [topics.replies], {}, 1, 2)) as of_other:
            assert (Shares(Store(other, 1), of_other, 1).look(), there(mine)) == ({1}, {0, 1})
            assert (stood_in_for(mine), each_reads_its_own(mine, 2)) == ({1}, False)  # not given back yet
            until("its share to be given back", lambda: shares.look() == {0})
            assert each_reads_its_own(mine, 2)
        until("its share to be taken over", lambda: shares.look() == {0, 1})


@pytest.mark.fault
def test_two_workers_and_a_host_that_dies_again_and_again_end_every_saga(
    postgres: Endpoint, kafka: Endpoint, shop: FatedShop, quick: Definition, unique: str, tmp_path: Path
) -> None:
    def worker(name: str, *arguments: Any) -> Worker:
        return Worker(name, tmp_path / f"{name}.log", *arguments).start()

    failing, history = replace(shop, fates=Fates(seed=5)), tmp_path / "history.jsonl"
    begun = list(orders(5, 30, World()))
    refused = {order.id for order in begun if Fate.REFUSED in {failing.fates.of(order, step) for step in STEPS}}
    kill = RecordedKill(HostWindow.COMMITTED, nth=3, history=history)
    site = Site(failing, unique, {"postgres": postgres, "kafka": kafka}, tmp_path, worker, workers=2, kill=kill)
    with opened(site, quick) as engine:
        connection = engine.client.store.connection
        until("both workers to read their shares", lambda: each_reads_its_own(connection, site.workers))
        for order in begun:
            engine.start(order)

        def rest() -> dict[str, Ended]:
            for dead in (host for host in engine.hosts if not host.alive()):
                dead.start()
            ended = engine.ended(order.id for order in begun)
            return ended if len(ended) == len(begun) else {}

        outcomes = until("all sagas to rest", rest, 100)
        askers = connection.execute("select distinct asker from sagas").fetchall()
    standing, kills = judge(failing), len(History.read(history).faults)
    compensated = {saga for saga, ended in outcomes.items() if ended.outcome is Outcome.COMPENSATED}
    assert (standing.violations, compensated) == ([], refused)
    assert standing.count(Ending.COMPLETE) == len(begun) - len(refused)
    assert (0 < len(refused) < len(begun), len(askers), kills > 1) == (True, 2, True)


def test_a_window_that_it_does_not_have_is_a_clear_error(shop: FatedShop, unique: str, tmp_path: Path) -> None:
    site = Site(shop, unique, {}, tmp_path, Worker, kill=RecordedKill(EffectWindow.AFTER, history=tmp_path))
    with pytest.raises(ConfigurationError, match="after the effect"), opened(site):
        pass
