"""The outside world: a real HTTP server, in a process of its own, that takes mails and knows prices.

POST /mail          a JSON object with `event`; sent on unless its Idempotency-Key header was seen before
GET /prices/<name>  {"cents": n}, today's price
PUT /prices         {"percent": n}: all prices rise by so many percent
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import msgspec

from shared import codec
from shared.experiment import Run
from shared.history import Action, Outcome, Recorder
from shared.wait import until
from shared.worker import Worker

NAME = "receiver"


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
