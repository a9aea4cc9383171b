"""The outside world: a real HTTP server, in a process of its own, that takes mails and knows prices.

POST /mail          a JSON object with `event`; sent on unless its Idempotency-Key header was seen before
GET /prices/<name>  {"cents": n}, today's price
PUT /prices         {"percent": n}: all prices rise by so many percent

Then its clients: a market that asks it for prices, and an office that sends mails through it, killed and replaying.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import msgspec

from shared import codec
from shared.checkers import duplicate_delivery, duplicate_effect
from shared.experiment import Run
from shared.faults import Kill, hook
from shared.history import Action, History, Outcome, Recorder
from shared.postgres import Connection, connect
from shared.wait import until
from shared.worker import Worker
from sourcing.audit import everything
from sourcing.gateway import Gateway, open_gateway
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projector, install
from sourcing.shop.mails import Confirmations
from sourcing.stage import lives
from sourcing.wrong.effects import SendWhileHandling, SilentReplay
from sourcing.wrong.emptied import start_again

NAME = "receiver"
Sender = type[SendWhileHandling] | type[Gateway]


class Mail(msgspec.Struct):
    event: str
    order: str


class Rise(msgspec.Struct):
    percent: int


class Price(msgspec.Struct):
    cents: int


_mail, _rise, _price = codec.decoder(Mail), codec.decoder(Rise), codec.decoder(Price)


class World:
    """What the server knows. Every mail that comes is a delivery, every mail that it sends on is an effect."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.percent = 100
        self.keys: set[str] = set()
        self.lock = threading.Lock()

    def mail(self, mail: Mail, key: str | None) -> None:
        with self.lock:
            self.recorder.record(Action.DELIVER, Outcome.OK, mail.event, key=mail.order, process=NAME)
            if key is None or key not in self.keys:
                self.recorder.record(Action.EFFECT, Outcome.OK, mail.event, key=mail.order, process=NAME)
            if key is not None:
                self.keys.add(key)

    def price(self, product: str) -> int:
        return price(product) * self.percent // 100


def price(product: str) -> int:
    """The first price of a product, in cents."""
    return 100 + sum(product.encode()) * 37 % 9_900


def receive(history: Path, url_file: Path) -> None:
    """A process: serve until killed; writes its URL to the file when it answers."""
    with Recorder(history, NAME) as recorder:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(World(recorder)))
        url_file.write_text(f"http://127.0.0.1:{server.server_port}")
        server.serve_forever()


def url_of(url_file: Path) -> str:
    """The server's URL, as soon as there is one."""
    return until("the receiver to listen", lambda: url_file.read_text() if url_file.exists() else "")


@contextmanager
def receiver(run: Run, name: str) -> Iterator[tuple[str, Worker]]:
    """The server during the block: its URL, and its process."""
    url_file = run.folder / f"{name}.url"
    with run.worker("receiver", receive, run.history_file(name), url_file) as world:
        yield url_of(url_file), world


# Its clients.


def post_mail(client: httpx.Client, url: str, body: bytes, key: str | None = None) -> None:
    """Raises httpx.HTTPError when the receiver did not take it, or may not have: a refusal, a time-out."""
    client.post(f"{url}/mail", content=body, headers={"Idempotency-Key": key} if key else {}).raise_for_status()


def ask_price(client: httpx.Client, url: str, product: str) -> int:
    """Today's price, in cents. Raises httpx.HTTPError, and NotReadable for an answer that is no price."""
    return _price(client.get(f"{url}/prices/{product}").raise_for_status().content).cents


def raise_prices(client: httpx.Client, url: str, percent: int) -> None:
    client.put(f"{url}/prices", json={"percent": percent}).raise_for_status()


def _handler(world: World) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement

        def do_POST(self) -> None:
            self._answer(lambda: world.mail(_mail(self._body()), self.headers.get("Idempotency-Key")))

        def do_PUT(self) -> None:
            self._answer(lambda: setattr(world, "percent", 100 + _rise(self._body()).percent))

        def do_GET(self) -> None:
            self._answer(lambda: {"cents": world.price(self.path.rpartition("/")[2])})

        def _body(self) -> bytes:
            length = self.headers["Content-Length"] or ""
            if not length.isdecimal():
                raise ValueError(f"{length!r} is no Content-Length")
            return self.rfile.read(int(length))

        def _answer(self, act: Callable[[], object]) -> None:
            try:
                status, answer = 200, act()
            except ValueError as error:
                status, answer = 400, {"error": f"{type(error).__name__}: {error}"}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the history has it all."""

    return Handler


# A market: orders whose prices are asked for.


@dataclass(frozen=True)
class Market:
    """A store of orders, and somebody who knows prices."""

    conninfo: str
    connection: Connection
    client: httpx.Client
    url: str
    world: Worker

    def price(self, product: str) -> int:
        """Today's, in cents."""
        return ask_price(self.client, self.url, product)

    def raise_prices(self, percent: int) -> None:
        raise_prices(self.client, self.url, percent)

    def write(self, seed: int, orders: int) -> int:
        """Orders whose commands have asked for the prices; returns how many events."""
        return lives.write(self.connection, seed, orders, price=self.price)


@contextmanager
def market(run: Run) -> Iterator[Market]:
    create(conninfo := run.schema("_prices"))
    with connect(conninfo) as connection, receiver(run, "prices") as (url, world), httpx.Client() as client:
        yield Market(conninfo, connection, client, url, world)


# An office: mails that confirm orders.


@dataclass(frozen=True)
class Office:
    """A store of orders, old ones and new ones; the new ones are due a mail each."""

    run: Run
    name: str  # of its history
    conninfo: str
    connection: Connection
    url: str
    batch: int

    @property
    def history(self) -> Path:
        return self.run.history_file(self.name)

    def send(self, way: Sender, kill: Kill | None = None, *, replay: bool = False) -> None:
        """A process handles all the events there are, and sends the mails that are due, in this way."""
        arguments = self.conninfo, way, self.url, self.history, self.batch, kill, replay
        self.run.worker("sender", send_mails, *arguments).wait()

    def replay(self, way: Sender) -> None:
        """All events again, from the first one on."""
        projection = Confirmations() if issubclass(way, Gateway) else SendWhileHandling(print)
        start_again(self.connection, projection)
        self.send(way, replay=True)

    def sent(self) -> list[str]:
        """The events that mails were sent on for, so far."""
        return [op.value for op in History.read(self.history).of(Action.EFFECT, Outcome.OK)]


@contextmanager
def office(run: Run, name: str, orders: int) -> Iterator[Office]:
    create(conninfo := run.schema(f"_{len(run.histories)}"))
    with connect(conninfo) as connection, receiver(run, name) as (url, _):
        lives.write(connection, run.seed, orders // 3, "old")
        install(connection)
        open_gateway(connection)
        lives.write(connection, run.seed, orders, "new")
        recorder = run.recorder(name, "shop")
        for event in everything(PostgresStore(connection)):
            if event.type == "OrderPlaced" and event.stream.startswith("order-new"):
                recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.stream)
        yield Office(run, name, conninfo, connection, url, 2 * orders)


@dataclass(frozen=True)
class Mails:
    """What the receiver saw of one sender."""

    orders: int  # that are due a mail
    crash: int  # mails sent on again after the sender was killed and started again
    replay: int  # mails sent on again during the replay
    never: int  # orders that are due one and got none
    early: int  # mails about orders from before there was a sender
    known: int  # mails that came again and were not sent on, since the receiver knew their key


def mails(history: History, before: list[str], after: list[str]) -> Mails:
    """By the mails that were sent on before the replay, and after it."""
    due = history.committed
    return Mails(
        orders=len(due),
        crash=len(before) - len(set(before)),
        replay=len(after) - len(before),
        never=len(due - set(after)),
        early=len(set(after) - due),
        known=len(duplicate_delivery(history)) - len(duplicate_effect(history)),
    )


def send_mails(
    conninfo: str, way: Sender, url: str, history: Path, batch: int, kill: Kill | None, replay: bool
) -> None:
    """A process: handle all the events there are, and see that the mails go out, in one of the ways; then end."""
    with Recorder(history, "sender") as recorder, connect(conninfo) as connection, httpx.Client() as client:
        at = hook(kill, recorder)
        post = partial(post_mail, client, url)
        if issubclass(way, SendWhileHandling):
            mailing = SilentReplay(post, replay) if way is SilentReplay else way(post)
            Projector(connection, mailing, batch=batch, at=at).catch_up()
            return
        Projector(connection, Confirmations(), batch=batch).catch_up()
        gateway = way(connection, post, at)
        while gateway.step():
            continue
