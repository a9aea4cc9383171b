"""The saga as a state machine on moto: what becomes of an order, whatever fails, and whoever dies."""

import dataclasses
from collections.abc import Callable, Iterator
from uuid import uuid4

import msgspec
import pytest
from msgspec.structs import replace
from saga.engines.stepfunctions.client import (
    OPERATOR,
    Account,
    Body,
    Definition,
    Executions,
    UnknownQueue,
    definition,
    deploy,
    make_queues,
)
from saga.engines.stepfunctions.worker import work
from saga.order import STEPS, UNDO, Action, Order, Outcome, World, orders
from saga.services import shop as shops
from saga.services.invariant import Ending, judge
from saga.services.shop import SERVICES
from saga.stage.engines import Site, wait
from saga.stage.engines.stepfunctions import StepFunctions, StrangeEnd, opened
from saga.stage.fates import Fate, FatedShop, Fates, mend
from saga.stage.fates import create as create_shop
from saga.stage.killing import RecordedKill, doomed
from saga.windows import EffectWindow

from shared import codec
from shared.faults import require
from shared.history import History
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

FINE, REFUSED, TRANSIENT, STUCK, SMALL, TAKEN = orders(19, 6, World())
HUGE = replace(SMALL, quantity=2**31)  # a valid order, and no integer of the databases'
FATES = Fates(
    steps={},
    undos={},
    fixed={
        (REFUSED.id, Action.SHIP): Fate.REFUSED,
        (TRANSIENT.id, Action.PLACE): Fate.TRANSIENT,
        (STUCK.id, Action.CHARGE): Fate.REFUSED,
        (STUCK.id, Action.RELEASE): Fate.BROKEN,
    },
)
QUEUES = {service: f"url of {service}" for service in (*SERVICES, OPERATOR)}
Making = Callable[..., Site]


@pytest.fixture(scope="module")
def making(postgres: Endpoint, moto: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Making]:
    """Sites with a shop of their own: making(workers=2)."""
    names: list[str] = []

    def make(workers: int = 1, kill: RecordedKill | None = None) -> Site:
        names.append(f"lab_test_{uuid4().hex[:10]}")
        folder = tmp_path_factory.mktemp("stepfunctions")

        def worker(name: str, *arguments: object) -> Worker:
            return Worker(name, folder / f"{name}.log", *arguments).start()  # type: ignore[arg-type]

        shop = create_shop(postgres, names[-1], FATES)
        return Site(shop, names[-1], {"moto": moto}, folder, worker, workers, kill)

    yield make
    for name in names:
        shops.drop(postgres, name)


@pytest.fixture(scope="module")
def site(making: Making) -> Site:
    return making()


@pytest.fixture(scope="module")
def engine(site: Site) -> Iterator[StepFunctions]:
    """A state machine with a worker, on which all orders are begun: they have their own fates, and take seconds."""
    with opened(site) as up:
        with connect(site.shop.conninfos["shipping"]) as connection:  # nobody can ship it once more
            connection.execute("insert into shipments values (%s, 'recalled')", [TAKEN.id])
        for order in (HUGE, TAKEN, FINE, REFUSED, TRANSIENT, STUCK):
            up.start(order)
        yield up


def outcome(engine: StepFunctions, order: Order) -> Outcome:
    return wait(engine, [order.id])[order.id].outcome


def entered(engine: StepFunctions, order: Order) -> list[str]:
    """The states that an execution came to."""
    arn = engine.sagas.machine.execution(order.id)
    events = engine.sagas.states.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]


def failures(engine: StepFunctions, order: Order) -> set[str]:
    """The errors of the tasks of an execution that failed."""
    arn = engine.sagas.machine.execution(order.id)
    events = engine.sagas.states.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return {event["taskFailedEventDetails"]["error"] for event in events if "taskFailedEventDetails" in event}


def impatient(asl: Definition) -> Definition:
    """The same, but a compensation that fails once needs the operator."""
    for undo in UNDO.values():
        asl["States"][undo]["Retry"] = []
    return asl


def ending(shop: FatedShop, order: Order) -> Ending | None:
    return judge(shop).endings.get(order.id)


def test_every_failed_step_is_undone_and_after_it_all_before_it() -> None:
    states = definition(QUEUES)["States"]
    assert [states[step]["Catch"][-1]["Next"] for step in STEPS] == [UNDO[step] for step in STEPS]
    backwards = [UNDO[step] for step in reversed(STEPS)]
    assert [states[undo]["Next"] for undo in backwards] == [*backwards[1:], "compensated"]


def test_a_queue_that_is_missing_is_named() -> None:
    with pytest.raises(UnknownQueue, match=r"wants \$\{PaymentsQueue\}"):
        definition({service: url for service, url in QUEUES.items() if service != "payments"})


def test_an_order_is_completed_and_its_saga_begun_once(engine: StepFunctions, site: Site) -> None:
    assert outcome(engine, FINE) is Outcome.COMPLETED
    engine.start(FINE)
    assert entered(engine, FINE) == [*STEPS, "completed"]
    assert ending(site.shop, FINE) is Ending.COMPLETE


def test_a_refused_order_is_undone_in_reverse(engine: StepFunctions, site: Site) -> None:
    assert outcome(engine, REFUSED) is Outcome.COMPENSATED
    assert entered(engine, REFUSED) == [*STEPS, Action.REFUND, Action.RELEASE, Action.CANCEL, "compensated"]
    assert ending(site.shop, REFUSED) is Ending.COMPENSATED


def test_what_fails_for_a_while_is_asked_again(engine: StepFunctions, site: Site) -> None:
    assert outcome(engine, TRANSIENT) is Outcome.COMPLETED
    assert ending(site.shop, TRANSIENT) is Ending.COMPLETE


def test_a_compensation_that_fails_for_good_waits_for_the_operator(engine: StepFunctions, site: Site) -> None:
    assert outcome(engine, STUCK) is Outcome.PARKED
    assert engine.parked[STUCK.id].reason["Error"] == "Transient"
    with connect(site.shop.conninfos["stock"]) as connection:
        mend(connection, f"{STUCK.id}:{Action.RELEASE}")
    engine.retry(STUCK.id)
    assert wait(engine, [STUCK.id])[STUCK.id].outcome is Outcome.COMPENSATED
    assert ending(site.shop, STUCK) is Ending.COMPENSATED


@pytest.mark.parametrize(("poison", "ends"), [(HUGE, None), (TAKEN, Ending.COMPENSATED)], ids=["huge", "taken"])
def test_a_poison_order_is_undone_and_no_worker_dies_of_it(
    engine: StepFunctions, site: Site, poison: Order, ends: Ending | None
) -> None:
    assert outcome(engine, poison) is Outcome.COMPENSATED
    failed = engine.sagas.look(poison.id)
    assert failed
    assert "Impossible" in failed.cause
    assert ending(site.shop, poison) is ends
    assert [worker.alive() for worker in engine.workers] == [True]


def test_a_plea_that_cannot_be_sent_is_sent_later(making: Making) -> None:
    site = making()
    with opened(site, impatient) as engine:
        account, queue = engine.sagas.machine.account, engine.sagas.machine.queues[OPERATOR]
        engine.sagas.queue.delete_queue(QueueUrl=queue)
        engine.start(STUCK)
        until("the plea to fail", lambda: "SQS.SdkClientException" in failures(engine, STUCK))
        assert make_queues(account, site.name, 5)[OPERATOR] == queue
        assert outcome(engine, STUCK) is Outcome.PARKED


def test_a_queue_that_is_away_for_a_while_kills_no_worker(making: Making) -> None:
    site = making()
    with opened(site) as engine:
        account, queue, [worker] = engine.sagas.machine.account, engine.sagas.machine.queues["stock"], engine.workers
        engine.sagas.queue.delete_queue(QueueUrl=queue)
        until(
            "the worker to find it gone", lambda: worker.log.exists() and "NonExistentQueue" in worker.log.read_text()
        )
        assert make_queues(account, site.name, 5)["stock"] == queue
        engine.start(FINE)
        assert outcome(engine, FINE) is Outcome.COMPLETED
        assert worker.alive()


def test_what_is_kept_for_a_look_is_there_after_the_engine(making: Making) -> None:
    with opened(dataclasses.replace(making(workers=0), keep=True)) as engine:
        engine.start(FINE)
    assert engine.sagas.running() == {FINE.id}
    engine.sagas.remove()


@pytest.mark.fault
def test_a_worker_is_killed_at_any_effect_and_another_sees_its_message_again(making: Making) -> None:
    site, sagas = making(workers=0), list[str]()
    history = site.folder / "history.jsonl"
    with opened(site, visible_again=1) as engine:
        for window, order in zip(EffectWindow, orders(23, 3, World()), strict=True):
            engine.start(order)
            sagas.append(order.id)
            kill = RecordedKill(window, nth=2, history=history)
            assert site.worker("first", doomed, kill, work, site.shop, engine.sagas.machine).wait() == -9
        with site.worker("second", work, site.shop, engine.sagas.machine):
            assert {one.outcome for one in wait(engine, sagas).values()} == {Outcome.COMPLETED}
    for window in EffectWindow:
        require(History.read(history), f"SIGKILL {window}")
    assert (judge(site.shop).violations, judge(site.shop).count(Ending.COMPLETE)) == ([], 3)


def test_a_message_that_no_worker_can_read_comes_to_the_operator(engine: StepFunctions) -> None:
    queue, tokenless = engine.sagas.machine.queues["stock"], Body("", FINE.id, Action.RESERVE, FINE)
    before = len(engine.unreadable)
    for text in ("{", msgspec.json.encode(tokenless).decode()):
        engine.sagas.queue.send_message(QueueUrl=queue, MessageBody=text)
    until("the operator to have both", lambda: engine.ended(["nobody"]) or len(engine.unreadable) == before + 2)
    reasons = " ".join(str(plea.reason) for plea in engine.unreadable[before:])
    assert "truncated" in reasons
    assert "length >= 1 - at `$.token`" in reasons


def test_a_plea_that_is_none_comes_to_the_operator_once_and_the_next_one_is_heard(engine: StepFunctions) -> None:
    queue, before = engine.sagas.machine.queues[OPERATOR], len(engine.unreadable)
    odd = ("{", "[" * 5_000, "5", '{"saga":"x","reason":"\\ud83d"}', '{"saga":"\\u0000","reason":""}')
    for text in (*odd, '{"saga":"fine","reason":"","token":"one"}'):
        engine.sagas.queue.send_message(QueueUrl=queue, MessageBody=text)
    until("all to be heard", lambda: engine.ended(["nobody"]) or "fine" in engine.parked)
    until("the queue to be empty", lambda: not list(engine.sagas.pleas()))
    found = [plea.reason for plea in engine.unreadable[before:]]
    assert ({one["message"] for one in found}, len(found)) == (set(odd), len(odd))
    assert all(one["unreadable"] for one in found)


def test_a_task_whose_message_cannot_be_read_fails_at_once_and_its_saga_comes_to_the_operator(making: Making) -> None:
    """The state machine was given, by another program, an order that is none."""
    with opened(making()) as engine:
        given = '{"order": {"id": "odd", "customer": 5}, "timeout": 60}'
        states, arn = engine.sagas.states, engine.sagas.machine.arn
        states.start_execution(stateMachineArn=arn, name="odd", input=given)
        engine.start(FINE)
        assert wait(engine, ["odd"], 120)["odd"].outcome is Outcome.PARKED
        assert engine.parked["odd"].reason["Error"] == "Unreadable"
        assert outcome(engine, FINE) is Outcome.COMPLETED


def test_a_task_of_another_service_comes_to_the_operator(engine: StepFunctions) -> None:
    text = codec.encode(Body("nobody's token", FINE.id, Action.CHARGE, FINE)).decode()
    engine.sagas.queue.send_message(QueueUrl=engine.sagas.machine.queues["stock"], MessageBody=text)
    [worker] = engine.workers
    until("the worker to have tried", lambda: "nobody's token" in worker.log.read_text())
    assert worker.alive()


def test_an_execution_that_is_out_of_time_is_no_end_of_a_saga(making: Making) -> None:
    with opened(making(workers=0), lambda asl: {**asl, "TimeoutSeconds": 1}) as engine:
        engine.start(FINE)
        with pytest.raises(StrangeEnd, match="TIMED_OUT"):
            wait(engine, [FINE.id])


def test_the_same_file_is_deployed_where_boto3_finds_aws_in_the_environment(
    engine: StepFunctions, moto: Endpoint, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but AWS itself: no address of ours, credentials and endpoint as a user of AWS has them."""
    names = "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
    for name, value in zip(names, (moto.url, "eu-west-1", "user", "secret"), strict=True):
        monkeypatch.setenv(name, value)
    account = Account()
    queues = make_queues(account, unique, 5)
    sagas = Executions(deploy(account, unique, queues, definition(queues)))
    sagas.start(FINE, 60)
    message = until("the first step", lambda: sagas.queue.receive_message(QueueUrl=queues["orders"]).get("Messages"))
    assert (":eu-west-1:" in sagas.machine.arn, sagas.running()) == (True, {FINE.id})
    assert msgspec.json.decode(message[0]["Body"], type=Body).action == Action.PLACE
    sagas.remove()
