"""What the experiments' figures and verdicts are made of: each can come out badly."""

import pytest
from outbox import inbox
from outbox.stage.failures import LEDGER, balance, book
from outbox.stage.measures import again_after, recovery
from outbox.stage.rings import Writers
from outbox.stage.shop import Shop
from psycopg import OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.errors import UndefinedTable

from shared.history import Action, History, Op, Outcome
from shared.postgres import Connection

SECOND = 1_000_000_000


def op(action: Action, at: float, value: str = "", until: float = 0) -> Op:
    return Op(int(at * SECOND), "process", action, Outcome.OK, value, until=int(until * SECOND))


def killed(*ops: Op) -> History:
    """Noted at 1 s, done at 2 s, over at 5 s; an event is written and delivered while it is not done yet."""
    early = op(Action.WRITE, 1.1, "early"), op(Action.DELIVER, 1.2, "early")
    return History([op(Action.FAULT, 1, until=5), *early, *ops])


def test_recovery_is_counted_from_when_the_harm_was_done() -> None:
    history = killed(op(Action.WRITE, 3, "late"), op(Action.DELIVER, 6.5, "late"))
    assert recovery(history, 2 * SECOND) == pytest.approx(4.5)


def test_what_never_recovered_has_no_time() -> None:
    history = killed(op(Action.WRITE, 3, "late"))
    assert recovery(history, 2 * SECOND) is None
    assert again_after(None) == "no new event after it"


@pytest.fixture
def ledger(shop: Shop, connection: Connection) -> Connection:
    """Every event of the shop booked once."""
    connection.execute(LEDGER)
    connection.execute(inbox.SCHEMA)
    shop.write_backlog()
    for event in shop.events():
        book(connection, event)
    return connection


def test_a_ledger_with_each_event_once_is_exact(shop: Shop, ledger: Connection) -> None:
    assert balance(shop.conninfo).exact
    assert balance(shop.conninfo).once == shop.count


@pytest.mark.parametrize(
    "harm",
    [
        "insert into ledger select * from ledger limit 1",
        "delete from ledger where event_id = (select event_id from ledger limit 1)",
        "insert into ledger values (gen_random_uuid(), 'order', 1)",
        "truncate ledger, outbox",
    ],
)
def test_a_ledger_that_is_wrong_is_not_exact(harm: str, shop: Shop, ledger: Connection) -> None:
    ledger.execute(harm)
    assert not balance(shop.conninfo).exact


def test_writers_that_cannot_connect_are_an_error_and_no_wait(shop: Shop) -> None:
    nowhere = make_conninfo(shop.conninfo, port=1)
    with pytest.raises(OperationalError):
        Writers(nowhere, shop.topic, sessions=2, seconds=1).rate()


def test_writers_that_fail_are_an_error(shop: Shop, connection: Connection) -> None:
    connection.execute("drop table order_steps")
    with pytest.raises(UndefinedTable):
        Writers(shop.conninfo, shop.topic, sessions=2, seconds=1).rate()
