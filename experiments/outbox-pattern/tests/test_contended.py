"""Several services at the same orders, and a relay that is killed: every relay that claims order keeps it."""

from pathlib import Path

import pytest
from outbox.relay.debezium import Connector
from outbox.relay.wal import WalRelay
from outbox.stage.counter import Counter, Shape, take_turns
from outbox.stage.schedules import TRANSACTIONS, Plan, contend, schedule, standing_open
from outbox.stage.shop import RELAYS, RelayClass, Shop
from outbox.windows import RelayWindow

from shared import kafka
from shared.checkers import aborted_read, lost, phantom, reordered
from shared.faults import Faults, Kill
from shared.history import History, Recorder, now
from shared.pytest_plugin import OwnStarter
from shared.servers.server import Endpoint
from shared.tap import Tap
from shared.wait import until
from shared.worker import Worker

SHAPES = Shape.UPDATE_FIRST, Shape.AUDIT_FIRST


@pytest.mark.fault
@pytest.mark.parametrize("way", RELAYS)
@pytest.mark.parametrize("window", RelayWindow)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_killed_anywhere_it_loses_nothing_and_keeps_the_order_of_shared_orders(
    way: RelayClass, window: RelayWindow, shape: Shape, shop_with_slot: Shop
) -> None:
    """While an unrelated transaction is open."""
    nth = 1 if way is WalRelay else 2  # it may have all that is there in one step
    found = contend(shop_with_slot, Plan(way, Kill(window, nth), shape, seed=7))
    assert TRANSACTIONS // 2 < found.written < TRANSACTIONS  # some were rolled back
    assert (found.lost, found.reordered, found.phantom, found.outside) == (0, 0, 0, 0)
    if window in (RelayWindow.AFTER_PUBLISH, RelayWindow.AFTER_MARK):
        assert found.doubled > 0  # the broker had them, and nobody had noted it


@pytest.mark.fault
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_schedule_of_a_seed_loses_nothing_keeps_the_order_and_doubles_in_its_window_only(
    seed: int, shop: Shop
) -> None:
    found = schedule(shop, seed)
    assert found.written > TRANSACTIONS // 2
    assert (found.lost, found.reordered, found.phantom, found.outside) == (0, 0, 0, 0)


@pytest.mark.fault
@pytest.mark.slow
def test_debezium_loses_nothing_and_keeps_the_order_when_connect_is_killed(
    shop: Shop, postgres: Endpoint, own: OwnStarter, recorder: Recorder, unique: str, tmp_path: Path
) -> None:
    """Connect is killed and started again while services are at work, and an unrelated transaction is open."""
    broker = own("kafka").endpoint
    worker = own("connect", {"kafka": broker})
    kafka.create_topics(broker, [shop.topic])
    counter = Counter(shop.conninfo, shop.topic, recorder.path, 7, count=2_000, orders=3, services=4, pause=0.002)
    counter.open()
    connector = Connector(worker.endpoint, postgres, f"{unique}_debezium", unique)
    with connector.running(), standing_open(shop), Tap("consumer", broker, [shop.topic], recorder) as tap:
        services = Worker("services", tmp_path / "services.log", take_turns, counter, Shape.AUDIT_FIRST).start()
        until("the first events", lambda: len(tap.ids) > 20)
        with Faults(recorder).down(worker):
            killed = now()
        services.wait()
        connector.wait_until_running()
        tap.wait_for(len(History.read(recorder.path).committed))
        tap.catch_up()
    history = History.read(recorder.path)
    assert sum(op.at > killed for op in history.written.values()) > 0  # it was killed under load
    assert not lost(history) + reordered(history) + phantom(history) + aborted_read(history)
