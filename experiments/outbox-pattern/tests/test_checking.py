"""lab outbox check, and lag: what is wrong with an outbox's writers is found, and what is right is not."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from outbox.operating.checking import Finding, check
from outbox.relay.cursor import CursorRelay
from outbox.relay.lag import Lag, lags
from outbox.relay.publisher import Publisher
from outbox.stage.counter import Services, Shape, changing, open_orders
from outbox.stage.shop import Shop, make_relay
from outbox.table import insert_event

from shared.event import Event
from shared.postgres import Connection, connect
from shared.servers.server import Endpoint

ONE, TWO = "order-1", "order-2"


def lab(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).parent / "lab"), "outbox", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def services(shop: Shop, connection: Connection) -> Iterator[Services]:
    open_orders(connection, [ONE, TWO])
    with ExitStack() as opened:
        yield Services([opened.enter_context(connect(shop.conninfo)) for _ in range(2)], shop.topic)


def event(number: int = 0) -> Event:
    return Event("shop.order.changed", "/shop/orders", ONE, sequence=number)


def kinds(found: list[Finding]) -> dict[str, int]:
    return {finding.what.split()[0]: finding.count for finding in found}


@pytest.fixture
def inserted_first(services: Services, shop: Shop) -> None:
    """A service inserts its event, another one takes its whole turn, and the first one goes on."""
    first, second = services.sessions
    with first.transaction():
        insert_event(first, one := event(), shop.topic)
        with changing(second, Shape.EVENT_FIRST, event(), shop.topic):
            pass
        first.execute("update orders set version = version + 1 where order_id = %s", [ONE])
        first.execute("update outbox set sequence = 2 where id = %s", [one.id])


@pytest.mark.usefixtures("inserted_first")
def test_events_inserted_before_the_lock_are_found(connection: Connection) -> None:
    [found] = check(connection)
    assert (found.count, found.fault) == (1, True)
    assert found.examples == (f"{topic_of(connection)} {ONE}: number 1 behind number 2, at position 2",)


def topic_of(connection: Connection) -> str:
    row = connection.execute("select aggregate_type from outbox limit 1").fetchone()
    return str(row[0]) if row else ""


def test_services_that_take_the_lock_first_are_right(services: Services, connection: Connection) -> None:
    services.write(0)
    services.insert(1, ONE, TWO, ONE)
    services.commit(1)
    services.insert(0, ONE)
    services.commit(0)
    assert check(connection) == []


def test_a_number_that_comes_twice_is_found_and_a_gap_is_noted(shop: Shop, connection: Connection) -> None:
    for number in (1, 3, 3, 7):
        insert_event(connection, event(number), shop.topic)
    found = check(connection)
    assert kinds(found) == {"numbers": 1, "gaps": 2}
    assert [finding.fault for finding in found] == [True, False]


def test_events_without_a_number_or_of_long_ago_are_not_looked_at(shop: Shop, connection: Connection) -> None:
    for number in (5, 4, 0, 0):
        insert_event(connection, event(number), shop.topic)
    connection.execute("update outbox set created_at = now() - interval '3 days'")
    assert kinds(check(connection)) == {"events": 1}
    assert check(connection, days=2) == []


def test_positions_that_sessions_keep_are_found(connection: Connection) -> None:
    connection.execute("alter table outbox alter position set cache 20")
    assert kinds(check(connection)) == {"positions": 20}


def test_a_position_that_is_drawn_before_the_transactions_number_is_found(connection: Connection) -> None:
    connection.execute("alter table outbox rename xid to was")
    connection.execute("alter table outbox add xid xid8")
    assert kinds(check(connection)) == {"columns": 1}


@pytest.mark.usefixtures("inserted_first")
def test_the_command_exits_with_1_and_says_what_to_do(postgres: Endpoint, unique: str) -> None:
    done = lab("check", "--schema", unique, "--dsn", postgres.url)
    assert done.returncode == 1
    assert "Have the aggregate's lock" in done.stdout


def test_the_command_is_content_with_an_outbox_in_order(
    services: Services, connection: Connection, postgres: Endpoint, unique: str
) -> None:
    services.insert(0, ONE, ONE)
    services.commit(0)
    done = lab("check", "--since", "1", "--schema", unique, "--dsn", postgres.url)
    assert (done.returncode, done.stdout.split()[0]) == (0, "every")


def test_lag_counts_what_waits_and_the_transactions_it_comes_back_for(
    services: Services, shop: Shop, connection: Connection
) -> None:
    relaying = make_relay(shop, CursorRelay, connection)
    services.insert(0, ONE, ONE)
    services.insert(1, TWO)
    services.commit(1)
    assert relaying.step() == 1
    assert lags(connection) == [Lag("cursor", 0, 0.0, 1, False)]
    services.commit(0)
    services.insert(1, TWO)
    services.commit(1)
    [found] = lags(connection)
    assert (found.waiting, found.open) == (3, 1)
    assert found.oldest > 0
    assert relaying.step() == 3
    assert [(one.waiting, one.open) for one in lags(connection)] == [(0, 0)]


def test_lag_counts_what_is_left_of_an_open_window(services: Services, shop: Shop, connection: Connection) -> None:
    services.insert(0, ONE, ONE, ONE)
    services.commit(0)
    assert CursorRelay(connection, Publisher(shop.broker), batch=1, pages=2).step() == 2
    [found] = lags(connection)
    assert (found.waiting, found.reading) == (1, True)


def test_the_command_shows_the_lag(shop: Shop, connection: Connection, postgres: Endpoint, unique: str) -> None:
    assert lab("lag", "--schema", unique, "--dsn", postgres.url).stdout == "no cursor relay has a note here\n"
    make_relay(shop, CursorRelay, connection)
    insert_event(connection, event(1), shop.topic)
    shown = lab("lag", "--schema", unique, "--dsn", postgres.url).stdout.splitlines()
    assert shown[1].split()[:2] == ["cursor", "1"]
