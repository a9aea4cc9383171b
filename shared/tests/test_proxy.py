"""The proxy lets through, cuts and slows: on plain sockets, and in front of a real Postgres."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shared import postgres
from shared.proxy import Proxy
from shared.servers.server import Endpoint

DELAY = 0.05


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes."""

    def handle(self) -> None:
        with suppress(ConnectionResetError):
            while data := self.request.recv(1 << 16):
                self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a server that sends back what comes."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: str) -> Iterator[Proxy]:
    with Proxy("wire", echo) as opened:
        yield opened


@pytest.fixture
def database(postgres: Endpoint) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of Postgres, and the conninfo URL that goes through it."""
    given = conninfo_to_dict(postgres.url)
    with Proxy("postgres", f"{given['host']}:{given.get('port', 5432)}") as opened:
        yield opened, make_conninfo(postgres.url, host="127.0.0.1", port=opened.port)


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def ask(connection: socket.socket, data: bytes) -> bytes:
    """Send, and receive as much."""
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data) and (chunk := connection.recv(1 << 16)):
        answer += chunk
    return answer


def test_what_goes_in_comes_out_both_ways(proxy: Proxy) -> None:
    with dial(proxy) as connection:
        assert ask(connection, b"hello") == b"hello"
    assert proxy.connections == 1


def test_many_bytes_come_out_whole_and_in_order(proxy: Proxy) -> None:
    data = bytes(range(256)) * 400  # more than one chunk
    with dial(proxy) as connection:
        assert ask(connection, data) == data


def test_a_cut_resets_what_is_open(proxy: Proxy) -> None:
    with dial(proxy) as connection:
        ask(connection, b"hello")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_while_cut_nothing_gets_through(proxy: Proxy) -> None:
    proxy.cut()
    with pytest.raises(ConnectionResetError), dial(proxy) as connection:
        connection.recv(1)


def test_after_restore_a_new_connection_works(proxy: Proxy) -> None:
    proxy.cut()
    proxy.restore()
    with dial(proxy) as connection:
        assert ask(connection, b"hello") == b"hello"


def test_slow_adds_at_least_the_delay_each_way(proxy: Proxy) -> None:
    with dial(proxy) as connection:
        ask(connection, b"hello")
        proxy.delay = DELAY
        began = time.monotonic()
        ask(connection, b"hello")
        assert time.monotonic() - began >= 2 * DELAY


def test_nobody_behind_it_looks_like_a_broken_connection() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # taken, and nobody listens
        target = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ConnectionResetError), Proxy("nobody", target) as proxy, dial(proxy) as connection:
            connection.recv(1)


def test_a_server_that_closes_closes_the_client(echo: str) -> None:
    with Proxy("wire", echo) as proxy, dial(proxy) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_the_end_of_the_block_leaves_no_thread_and_no_open_port(echo: str) -> None:
    with Proxy("wire", echo) as proxy, dial(proxy) as connection:
        ask(connection, b"hello")
    assert "proxy-wire" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)


@pytest.mark.fault
def test_a_cut_breaks_an_open_session_of_postgres_and_after_restore_a_new_one_works(
    database: tuple[Proxy, str],
) -> None:
    proxy, url = database
    with postgres.connect(url) as session:
        assert session.execute("select 1").fetchone() == (1,)
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            session.execute("select 1")
    with pytest.raises(psycopg.OperationalError):
        postgres.connect(url)
    proxy.restore()
    with postgres.connect(url) as session:
        assert session.execute("select 1").fetchone() == (1,)


@pytest.mark.fault
def test_a_slow_wire_slows_each_query_by_the_delay_each_way(database: tuple[Proxy, str]) -> None:
    proxy, url = database
    with postgres.connect(url) as session:
        proxy.delay = DELAY
        began = time.monotonic()
        session.execute("select 1")
        assert time.monotonic() - began >= 2 * DELAY
