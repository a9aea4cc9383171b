"""The outside world: sent once, whatever is replayed and whoever dies."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from sourcing.event import NewEvent
from sourcing.gateway import Gateway, open_gateway
from sourcing.postgres import PostgresStore
from sourcing.projection import Projection, Projector, install
from sourcing.rebuild import rebuild
from sourcing.shop.mails import Confirmations
from sourcing.shop.order_value import OrderValue
from sourcing.stage import lives
from sourcing.stage.outside import Sender, ask_price, post_mail, raise_prices, receive, send_mails, url_of
from sourcing.windows import EffectWindow, ProjectionWindow
from sourcing.wrong.effects import AskedValue, NoteFirst, SendWhileHandling, SilentReplay
from sourcing.wrong.emptied import start_again

from shared.errors import NotReadable
from shared.faults import Kill, require
from shared.history import Action, History
from shared.postgres import Connection, connect
from shared.worker import Worker

ORDERS = 6


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


@pytest.fixture
def world(history: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a receiver in a process of its own."""
    with Worker("receiver", tmp_path / "log", receive, history, tmp_path / "url"):
        yield url_of(tmp_path / "url")


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client() as opened:
        yield opened


@pytest.fixture
def orders(connection: Connection) -> None:
    """A gateway, and some orders after it was opened."""
    install(connection)
    open_gateway(connection)
    lives.write(connection, 7, ORDERS)


def mails(history: Path) -> tuple[int, int]:
    """Mails that came, and mails that were sent on."""
    found = History.read(history)
    return len(found.delivered), len(list(found.of(Action.EFFECT)))


@pytest.mark.usefixtures("orders")
def test_every_order_is_confirmed_once_and_a_replay_sends_nothing(
    world: str, client: httpx.Client, history: Path, connection: Connection
) -> None:
    gateway = Gateway(connection, partial(post_mail, client, world))
    for _ in range(2):
        Projector(connection, Confirmations()).catch_up()
        while gateway.step():
            continue
        assert mails(history) == (ORDERS, ORDERS)
        start_again(connection, Confirmations())


@pytest.mark.usefixtures("orders")
def test_a_rebuild_of_the_projection_keeps_what_was_sent(
    world: str, client: httpx.Client, history: Path, connection: Connection, schema: str
) -> None:
    Projector(connection, Confirmations()).catch_up()
    gateway = Gateway(connection, partial(post_mail, client, world))
    assert gateway.step() == ORDERS
    rebuild(schema, Confirmations())
    assert (gateway.step(), mails(history)) == (0, (ORDERS, ORDERS))


@pytest.mark.usefixtures("orders")
def test_a_naive_replay_sends_every_mail_again(
    world: str, client: httpx.Client, history: Path, connection: Connection
) -> None:
    naive = SendWhileHandling(partial(post_mail, client, world))
    Projector(connection, naive).catch_up()
    start_again(connection, naive)
    Projector(connection, naive).catch_up()
    assert mails(history) == (2 * ORDERS, 2 * ORDERS)


@pytest.mark.fault
@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize(
    ("way", "window", "came", "went"),
    [
        (Gateway, EffectWindow.BEFORE, ORDERS, ORDERS),
        (Gateway, EffectWindow.BETWEEN, ORDERS + 1, ORDERS),
        (Gateway, EffectWindow.AFTER, ORDERS, ORDERS),
        (NoteFirst, EffectWindow.BETWEEN, ORDERS - 1, ORDERS - 1),
        (SendWhileHandling, ProjectionWindow.BETWEEN, 2 * ORDERS, 2 * ORDERS),
        (SilentReplay, ProjectionWindow.BETWEEN, 2 * ORDERS, 2 * ORDERS),
    ],
)
def test_killed_and_started_again(
    way: Sender,
    window: EffectWindow | ProjectionWindow,
    came: int,
    went: int,
    world: str,
    schema: str,
    history: Path,
    tmp_path: Path,
) -> None:
    for kill in (Kill(window), None):
        with Worker("sender", tmp_path / "log", send_mails, schema, way, world, history, 1000, kill, False) as sender:
            sender.wait()
    require(History.read(history), f"SIGKILL {window}")
    assert mails(history) == (came, went)


def test_nobody_hears_of_orders_from_before_the_gateway_was_opened(connection: Connection) -> None:
    install(connection)
    lives.write(connection, 7, 3, "old")
    open_gateway(connection)
    lives.write(connection, 7, 2, "new")
    Projector(connection, Confirmations()).catch_up()
    assert due(connection) == {"order-new000000", "order-new000001"}


def test_an_order_whose_transaction_was_open_when_the_gateway_was_opened_is_confirmed(
    connection: Connection, schema: str
) -> None:
    install(connection)
    with connect(schema) as other, other.transaction():
        PostgresStore(other).append("order-1", [NewEvent("OrderPlaced", {"customer": "somebody"})])
        open_gateway(connection)
    Projector(connection, Confirmations()).catch_up()
    assert due(connection) == {"order-1"}


def due(connection: Connection) -> set[str]:
    """The orders that a mail is due for."""
    return {order for (order,) in connection.execute("select convert_from(body, 'utf8')::jsonb->>'order' from effects")}


@pytest.mark.usefixtures("orders")
def test_what_the_receiver_refuses_stays_due_with_the_error(
    world: str, client: httpx.Client, history: Path, connection: Connection
) -> None:
    Projector(connection, Confirmations()).catch_up()
    broken = Gateway(connection, lambda body, key: post_mail(client, world, b"{", key))
    assert broken.step() == 0
    [(attempts, error)] = connection.execute("select distinct attempts, error from effects").fetchall()
    assert (attempts, error[:43]) == (1, "HTTPStatusError: Client error '400 Bad Requ")
    assert Gateway(connection, partial(post_mail, client, world)).step() == ORDERS


@pytest.mark.parametrize("recorded", [True, False])
def test_after_prices_rose_a_replay_differs_unless_they_are_in_the_events(
    recorded: bool, world: str, client: httpx.Client, connection: Connection, schema: str
) -> None:
    price = partial(ask_price, client, world)
    model: Projection = OrderValue() if recorded else AskedValue(price)
    install(connection, model)
    lives.write(connection, 7, 3, price=price)
    Projector(connection, model).catch_up()
    before = values(connection, model)
    raise_prices(client, world, 10)
    rebuild(schema, model)
    assert (values(connection, model) == before) is recorded
    assert len(before) == 3


def values(connection: Connection, model: Projection) -> list[tuple[object, ...]]:
    return connection.execute(f"select * from {model.name} order by order_id").fetchall()  # noqa: S608


DEEP = b'{"event":"1","order":"2","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}"


@pytest.mark.parametrize("body", [DEEP, b'{"event":"1","order":"\xfc"}', b"[1]", b"{", b"", b'{"event":1,"order":"2"}'])
def test_a_body_that_is_no_mail_is_refused_and_the_next_one_is_taken(
    body: bytes, world: str, client: httpx.Client, history: Path
) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400 Bad Request"):
        post_mail(client, world, body)
    with pytest.raises(httpx.HTTPStatusError, match="400 Bad Request"):
        client.put(f"{world}/prices", content=body).raise_for_status()
    post_mail(client, world, b'{"event":"1","order":"2"}')
    assert mails(history) == (1, 1)


@pytest.mark.usefixtures("orders")
def test_a_mail_that_cannot_be_sent_stays_due_and_holds_up_no_other(connection: Connection) -> None:
    Projector(connection, Confirmations()).catch_up()
    sent: list[str] = []

    def send(body: bytes, key: str) -> None:
        if b"order-000003" in body:
            raise NotReadable("the answer is \0 or \ud83d")
        sent.append(key)

    gateway = Gateway(connection, send)
    assert (gateway.step(), gateway.step(), len(set(sent))) == (ORDERS - 1, 0, ORDERS - 1)
    due = connection.execute("select attempts, error from effects where sent_at is null").fetchall()
    assert due == [(2, r"NotReadable: the answer is \0 or \ud83d")]
