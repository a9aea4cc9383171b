"""An event's effect is had once, however often and from however many sides it comes."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from outbox import inbox
from psycopg.errors import SerializationFailure

from shared.event import Event
from shared.postgres import Connection, connect
from shared.wait import until

EVENT = Event("t", "/s")
HOUR = timedelta(hours=1)


@pytest.fixture
def connection(schema: str) -> Iterator[Connection]:
    with connect(schema) as opened:
        opened.execute(inbox.SCHEMA)
        opened.execute("create table effect (event_id uuid not null)")
        yield opened


def effect(connection: Connection, event: Event) -> None:
    connection.execute("insert into effect values (%s)", [event.id])


def failing(connection: Connection, event: Event) -> None:
    effect(connection, event)
    raise RuntimeError("the effect fails half way")


def count(connection: Connection, table: str = "effect") -> int:
    row = connection.execute(f"select count(*) from {table}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def test_the_second_time_there_is_no_effect(connection: Connection) -> None:
    assert inbox.once(connection, "accounts", EVENT, effect)
    assert not inbox.once(connection, "accounts", EVENT, effect)
    assert count(connection) == 1


def test_every_consumer_has_its_own_effect(connection: Connection) -> None:
    assert inbox.once(connection, "accounts", EVENT, effect)
    assert inbox.once(connection, "mail", EVENT, effect)


def test_events_with_the_same_content_are_two(connection: Connection) -> None:
    assert inbox.once(connection, "accounts", EVENT, effect)
    assert inbox.once(connection, "accounts", Event("t", "/s"), effect)


def test_events_with_one_id_from_two_sources_are_two(connection: Connection) -> None:
    assert inbox.once(connection, "accounts", EVENT, effect)
    assert inbox.once(connection, "accounts", replace(EVENT, source="/other"), effect)
    assert count(connection) == 2


def test_one_that_must_give_way_tries_again_but_not_in_a_transaction_of_its_caller(
    connection: Connection,
) -> None:
    """Whose is it to try again? With other sessions at it: test_hostile.py."""
    overtaken: list[bool] = []

    def effect_or_fail(session: Connection, event: Event) -> None:
        if not overtaken:
            overtaken.append(True)
            raise SerializationFailure("could not serialize access")
        effect(session, event)

    assert inbox.once(connection, "accounts", EVENT, effect_or_fail)
    assert count(connection) == 1
    overtaken.clear()
    with pytest.raises(SerializationFailure), connection.transaction():
        inbox.once(connection, "mail", EVENT, effect_or_fail)


def test_an_effect_that_fails_leaves_nothing_and_may_be_tried_again(connection: Connection) -> None:
    with pytest.raises(RuntimeError):
        inbox.once(connection, "accounts", EVENT, failing)
    assert (count(connection), count(connection, "inbox")) == (0, 0)
    assert inbox.once(connection, "accounts", EVENT, effect)


def test_in_a_transaction_of_the_caller_it_is_undone_with_it(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        assert inbox.once(connection, "accounts", EVENT, effect)
    assert (count(connection), count(connection, "inbox")) == (0, 0)


@pytest.mark.parametrize("first_fails", [False, True])
def test_of_two_at_the_same_time_one_has_the_effect(first_fails: bool, schema: str, connection: Connection) -> None:
    """The second one waits for the first: it has the effect only if the first one fails."""
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection, event: Event) -> None:
        effect(connection, event)
        entered.set()
        go_on.wait(10)
        if first_fails:
            raise psycopg.Rollback

    with ThreadPoolExecutor(2) as pool, connect(schema) as one, connect(schema) as other:
        first = pool.submit(inbox.once, one, "accounts", EVENT, slow)
        assert entered.wait(10)
        second = pool.submit(inbox.once, other, "accounts", EVENT, effect)
        pid = other.info.backend_pid
        until("the second one to wait", lambda: waits(connection, pid))
        go_on.set()
        first.result(10)
        assert second.result(10) is first_fails
    assert count(connection) == 1


def waits(connection: Connection, pid: int) -> bool:
    row = connection.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()
    return bool(row and row[0])


def test_many_at_once_have_one_effect(schema: str, connection: Connection) -> None:
    def try_it(_: int) -> bool:
        with connect(schema) as own:
            return inbox.once(own, "accounts", EVENT, effect)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_it, range(16))) == 1
    assert count(connection) == 1


def test_old_ids_are_forgotten_and_young_ones_kept(connection: Connection) -> None:
    old, young = Event("t", "/s"), Event("t", "/s")
    for event in (old, young):
        inbox.once(connection, "accounts", event, effect)
    connection.execute("update inbox set handled_at = handled_at - interval '2 hours' where event_id = %s", [old.id])
    assert inbox.forget(connection, HOUR) == 1
    assert not inbox.once(connection, "accounts", young, effect)
    assert inbox.once(connection, "accounts", old, effect), "an id forgotten too early lets its event count again"
