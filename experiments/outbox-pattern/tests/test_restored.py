"""An outbox restored: into another cluster by a dump, and from an older backup under a checkpoint that is newer."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from outbox.cli import cli
from outbox.operating.slots import first_missing, publish_from
from outbox.relay.cursor import CursorRelay
from outbox.relay.publisher import Publisher
from outbox.relay.reading import Reader
from outbox.stage.readers import MakeReader
from outbox.stage.shop import Shop, make_relay
from outbox.table import COMMAND, TABLE, insert_event
from outbox.wrong.positions import BehindOpen, ByPair, ByPosition
from psycopg.errors import ObjectNotInPrerequisiteState
from typer.testing import CliRunner

from shared import home, kafka, moving
from shared.errors import CheckpointRefused, NotAdopted
from shared.postgres import Connection, connect, drop_schema, in_schema
from shared.servers.handle import own_instance
from shared.servers.server import Endpoint
from shared.settings import Settings


@pytest.fixture(scope="module")
def fresh(settings: Settings) -> Iterator[Endpoint]:
    with own_instance("postgres", settings) as handle:
        yield handle.endpoint


@pytest.fixture
def restored(shop: Shop, postgres: Endpoint, fresh: Endpoint, unique: str) -> Iterator[Shop]:
    """The shop in a fresh cluster: forty events written, twenty of them published by the cursor before the dump."""
    with connect(shop.conninfo) as connection, connect(fresh.url) as other:
        moving.age(connection, max(0, moving.newest_id(other) + 3_000 - moving.newest_id(connection)))
        events = list(shop.events())
        for event in events[:20]:
            insert_event(connection, event, shop.topic)
        assert make_relay(shop, CursorRelay, connection).step() == 20
        for event in events[20:]:
            insert_event(connection, event, shop.topic)
    moving.restore(fresh, moving.dump(postgres, unique))
    yield replace(shop, conninfo=in_schema(fresh.url, unique))
    drop_schema(fresh, unique)


def published(shop: Shop) -> list[str]:
    return [kafka.headers(message)["ce_id"].decode() for message in kafka.read_all(shop.broker, shop.topic)]


def test_unadopted_neither_the_relay_nor_a_service_goes_on(restored: Shop) -> None:
    with connect(restored.conninfo) as connection:
        with pytest.raises(NotAdopted, match="run `lab outbox adopt` first"):
            make_relay(restored, CursorRelay, connection)
        with pytest.raises(ObjectNotInPrerequisiteState, match="run `lab outbox adopt` first"):
            insert_event(connection, next(restored.events()), restored.topic)


def test_adopted_the_relay_goes_on_from_its_checkpoint_and_publishes_new_rows_last(restored: Shop) -> None:
    new = list(replace(restored, count=5, prefix="new").events())
    with connect(restored.conninfo) as connection:
        home.adopt(connection, TABLE, COMMAND)
        for event in new:
            insert_event(connection, event, restored.topic)
        assert make_relay(restored, CursorRelay, connection).step() == 25
    sent = published(restored)
    assert len(sent) == len(set(sent)) == 45
    assert set(sent) == {event.id for event in [*restored.events(), *new]}


@pytest.mark.parametrize("way", [Reader, ByPair, BehindOpen, ByPosition])
def test_adopted_every_reader_has_the_old_rows_first(way: MakeReader, restored: Shop) -> None:
    event = next(replace(restored, count=1, prefix="new").events())
    with connect(restored.conninfo) as connection:
        home.adopt(connection, TABLE, COMMAND)
        insert_event(connection, event, restored.topic)
        seen = [row[5] for rows in way(connection).pages(100) for row in rows]
    assert seen == [event.id for event in [*restored.events(), event]]


def test_adopted_the_way_back_from_a_lost_slot_is_open(restored: Shop) -> None:
    with connect(restored.conninfo) as connection:
        home.adopt(connection, TABLE, COMMAND)
        start = first_missing(connection, published(restored))
        assert start is not None
        assert publish_from(connection, Publisher(restored.broker), start) == 20


def test_the_command_adopts(restored: Shop, fresh: Endpoint, unique: str) -> None:
    done = CliRunner().invoke(cli, ["adopt", "--schema", unique, "--dsn", fresh.url])
    assert (done.exit_code, done.stdout.split()[0]) == (0, "adopted")
    with connect(restored.conninfo) as connection:
        make_relay(restored, CursorRelay, connection)


def test_a_checkpoint_of_a_row_that_has_become_another_one_is_refused(shop: Shop, connection: Connection) -> None:
    shop.write_backlog()
    make_relay(shop, CursorRelay, connection).step()
    last = "where position = (select position from outbox_checkpoint)"
    connection.execute(f"update outbox set id = gen_random_uuid() {last}")  # noqa: S608
    with pytest.raises(CheckpointRefused, match=r"relay 'cursor': .* older backup"):
        make_relay(shop, CursorRelay, connection)


def test_a_checkpoint_of_a_transaction_yet_to_come_is_refused(shop: Shop, connection: Connection) -> None:
    """As after a restore of the whole cluster to an earlier time, with a checkpoint that is kept elsewhere."""
    make_relay(shop, CursorRelay, connection)
    connection.execute("update outbox_checkpoint set previous = '999999999:999999999:', position = 5")
    with pytest.raises(CheckpointRefused):
        make_relay(shop, CursorRelay, connection)


@pytest.mark.parametrize("kept", ["the others", "nothing"])
def test_a_checkpoint_whose_row_was_cleaned_up_is_taken(shop: Shop, connection: Connection, kept: str) -> None:
    shop.write_backlog()
    make_relay(shop, CursorRelay, connection).step()
    last = "position = (select position from outbox_checkpoint)"
    connection.execute(f"delete from outbox where {last} or {kept == 'nothing'}")  # noqa: S608
    insert_event(connection, next(replace(shop, count=1, prefix="new").events()), shop.topic)
    assert make_relay(shop, CursorRelay, connection).step() == 1


def test_adopted_a_cursor_finds_rows_whose_positions_began_anew(shop: Shop, connection: Connection) -> None:
    """As where the rows stayed behind, and so did the sequence: the checkpoint alone came along."""
    shop.write_backlog()
    make_relay(shop, CursorRelay, connection).step()
    connection.execute("truncate outbox restart identity")
    connection.execute("update outbox_homes set system_identifier = 1")
    home.adopt(connection, TABLE, COMMAND)
    insert_event(connection, next(replace(shop, count=1, prefix="new").events()), shop.topic)
    assert make_relay(shop, CursorRelay, connection).step() == 1
