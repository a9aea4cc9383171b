"""lab outbox parked | retry | discard."""

import subprocess
import sys
from pathlib import Path

import pytest
from outbox.guard import install
from outbox.parking import parked
from outbox.relay.cursor import CursorRelay
from outbox.stage.shop import Shop, make_relay
from outbox.table import insert_event, pending

from shared.postgres import Connection
from shared.servers.server import Endpoint


def lab(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).parent / "lab"), "outbox", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def one_parked(shop: Shop, connection: Connection) -> str:
    event = next(shop.events())
    insert_event(connection, event, "no.such.topic")
    make_relay(shop, CursorRelay, connection).step()
    return event.id


def test_parked_names_the_event_and_the_reason(one_parked: str, postgres: Endpoint, unique: str) -> None:
    shown = lab("parked", "--schema", unique, "--dsn", postgres.url).stdout
    assert one_parked in shown
    assert "there is no topic 'no.such.topic'" in shown


def test_retry_puts_it_back(one_parked: str, postgres: Endpoint, unique: str, connection: Connection) -> None:
    done = lab("retry", one_parked, "--schema", unique, "--dsn", postgres.url)
    assert done.stdout.startswith("1 put back")
    assert (pending(connection), parked(connection)) == (2, [])  # the cursor does not mark: both rows are unmarked


def test_retry_says_what_the_guard_parks_again(
    one_parked: str, postgres: Endpoint, unique: str, connection: Connection
) -> None:
    install(connection)
    done = lab("retry", "--all", "--schema", unique, "--dsn", postgres.url)
    assert done.stdout.startswith("0 put back")
    assert f"1 parked again: {one_parked} there is no route for 'no.such.topic'" in " ".join(done.stdout.split())


def test_discard_all_deletes_it(one_parked: str, postgres: Endpoint, unique: str, connection: Connection) -> None:
    assert lab("discard", "--all", "--schema", unique, "--dsn", postgres.url).stdout.startswith("1 discarded")
    assert parked(connection) == []


def test_an_id_that_is_not_parked_is_a_clear_error(one_parked: str, postgres: Endpoint, unique: str) -> None:
    done = lab("discard", "nonsense", "--schema", unique, "--dsn", postgres.url)
    assert done.returncode == 1
    assert done.stderr == "error: no event 'nonsense' is parked here (see `lab outbox parked`)\n"


def test_a_schema_without_an_outbox_is_a_clear_error(postgres: Endpoint) -> None:
    done = lab("parked", "--schema", "nowhere", "--dsn", postgres.url)
    assert done.returncode == 1
    assert "there is no schema 'nowhere'" in done.stderr
