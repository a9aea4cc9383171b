"""Events restored: into another cluster by a dump, and from an older backup under checkpoints that are newer."""

from collections.abc import Callable, Iterator

import pytest
from sourcing import checkpoint, gateway
from sourcing.cli import cli
from sourcing.errors import WrongExpectedVersion
from sourcing.event import NewEvent
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projector, install
from sourcing.rebuild import rebuild
from sourcing.shop.mails import Confirmations
from sourcing.shop.read_models import PROJECTIONS, OrderSummary
from sourcing.stage import lives
from sourcing.stage.traffic import wrong_rows
from sourcing.store import NO_STREAM, StreamMetadata
from sourcing.windowed import read_window
from typer.testing import CliRunner

from shared import home, moving
from shared.errors import CheckpointRefused, NotAdopted
from shared.postgres import Connection, connect, create_schema, drop_schema, in_schema
from shared.pytest_plugin import OwnStarter
from shared.servers.handle import own_instance
from shared.servers.server import Endpoint
from shared.settings import Settings

SUMMARY = OrderSummary()
ADOPT = "events", "lab sourcing"


def note(text: str) -> NewEvent:
    return NewEvent("Noted", {"text": text})


@pytest.fixture(scope="module")
def fresh(settings: Settings) -> Iterator[Endpoint]:
    with own_instance("postgres", settings) as handle:
        yield handle.endpoint


@pytest.fixture
def original(schema: str, fresh: Endpoint) -> PostgresStore:
    """Orders and a read model of half of them, in a cluster whose transaction ids are above those of the fresh one."""
    create(schema)
    connection = connect(schema)
    with connect(fresh.url) as other:
        moving.age(connection, max(0, moving.newest_id(other) + 3_000 - moving.newest_id(connection)))
    install(connection, *PROJECTIONS.values())
    gateway.open_gateway(connection)
    lives.write(connection, 7, 20)
    Projector(connection, SUMMARY, batch=50).step()
    return PostgresStore(connection)


@pytest.fixture
def restored(original: PostgresStore, postgres: Endpoint, fresh: Endpoint, unique: str) -> Iterator[str]:
    """A conninfo of all that, in the fresh cluster, where nobody has adopted it."""
    with original.connection:
        moving.restore(fresh, moving.dump(postgres, unique))
    yield in_schema(fresh.url, unique)
    drop_schema(fresh, unique)


def test_unadopted_every_reader_and_writer_is_refused(restored: str) -> None:
    begin: list[Callable[[Connection], object]] = [
        PostgresStore,
        lambda opened: Projector(opened, SUMMARY),
        read_window,
    ]
    for start in begin:
        with connect(restored) as connection, pytest.raises(NotAdopted, match="run `lab sourcing adopt` first"):
            start(connection)


def test_adopted_streams_go_on_and_checkpoints_stay_valid(restored: str, original: PostgresStore) -> None:
    with connect(restored) as connection, connect(restored) as reading:
        assert home.adopt(connection, *ADOPT).moved > 0
        store = PostgresStore(connection)
        history = store.read_all(limit=10_000)
        elsewhere = history[len(history) // 2].place  # a checkpoint that is kept in another database
        last = history[-1]
        store.append("note-1", [note("a new stream")], NO_STREAM)
        assert store.append(last.stream, [note("the stream goes on")], last.version) == last.version + 1
        with pytest.raises(WrongExpectedVersion):
            store.append(last.stream, [note("too late")], last.version)
        rest = PostgresStore(reading).read_all(elsewhere, 10_000)
        assert rest[:-2] == history[len(history) // 2 + 1 :]
        assert [event.stream for event in rest[-2:]] == ["note-1", last.stream]
        store.connection.execute("delete from events where type = 'Noted'")
        Projector(reading, SUMMARY).catch_up()
        assert not wrong_rows(connection)


def test_adopted_a_reader_goes_on_in_the_window_that_was_open(restored: str, schema: str) -> None:
    with connect(schema) as connection:
        history = PostgresStore(connection).read_all(limit=10_000)
        first, place = read_window(connection, limit=20)
    with connect(restored) as connection:
        home.adopt(connection, *ADOPT)
        PostgresStore(connection).append("note-1", [note("new")])
        rest, place = read_window(connection, place, 10_000)
        new, _ = read_window(connection, place)
        assert [*first, *rest] == history
        assert [event.stream for event in new] == ["note-1"]


@pytest.mark.parametrize(("opened", "due"), [("before", 23), ("after", 3)])
def test_a_gateway_begins_where_it_was_opened(restored: str, opened: str, due: int) -> None:
    """Before the dump: what was owed then stays owed. After the adoption: history is none of its business."""
    with connect(restored) as connection:
        home.adopt(connection, *ADOPT)
        if opened == "after":
            connection.execute("drop table effects, effects_since")
            gateway.open_gateway(connection)
        lives.write(connection, 8, 3, "new-")
        Projector(connection, Confirmations()).catch_up()
        assert connection.execute("select count(*) from effects").fetchall() == [(due,)]


def test_the_command_adopts(restored: str, fresh: Endpoint, unique: str) -> None:
    done = CliRunner().invoke(cli, ["adopt", "--schema", unique, "--dsn", fresh.url])
    assert (done.exit_code, done.stdout.split()[0]) == (0, "adopted")
    with connect(restored) as connection:
        assert PostgresStore(connection).append("note-1", [note("new")]) == 1
    again = CliRunner().invoke(cli, ["adopt", "--schema", unique, "--dsn", fresh.url])
    assert "this cluster's own" in " ".join(again.stdout.split())


def test_there_is_nothing_to_adopt_in_another_schema(postgres: Endpoint, unique: str) -> None:
    create_schema(postgres, unique)
    done = CliRunner().invoke(cli, ["adopt", "--schema", unique, "--dsn", postgres.url])
    drop_schema(postgres, unique)
    assert "there is no event store in schema" in str(done.exception)


@pytest.fixture
def ahead(store: PostgresStore) -> PostgresStore:
    """A read model of all events, the last 30 of which are then taken away as by a restore of the table alone."""
    connection = store.connection
    install(connection, SUMMARY)
    lives.write(connection, 7, 20)
    Projector(connection, SUMMARY).catch_up()
    connection.execute("delete from events where position > (select max(position) - 30 from events)")
    return store


@pytest.mark.parametrize("since", [0, 1, 20])
def test_a_checkpoint_of_an_event_that_is_not_there_is_refused_until_a_rebuild(
    ahead: PostgresStore, schema: str, since: int
) -> None:
    lives.write(ahead.connection, 9, since, "since-")
    with pytest.raises(
        CheckpointRefused, match=r"'order_summary': .*older backup; .* lab sourcing rebuild order_summary"
    ):
        Projector(ahead.connection, SUMMARY)
    rebuild(schema, SUMMARY)
    lives.write(ahead.connection, 9, 2, "later-")
    Projector(ahead.connection, SUMMARY).catch_up()
    assert not wrong_rows(ahead.connection)


def test_a_checkpoint_at_the_place_of_another_event_is_refused(ahead: PostgresStore) -> None:
    connection = ahead.connection
    [place] = connection.execute("select xid::text, position, last_stream, last_version from checkpoints").fetchall()
    connection.execute(
        "insert into events (xid, position, stream, version, type, schema_version, id, data, metadata)"
        " overriding system value values (%s::text::xid8, %s, %s, %s, 'Noted', 1, gen_random_uuid(), '{}', '{}')",
        place,
    )
    with pytest.raises(CheckpointRefused):
        Projector(connection, SUMMARY)


def test_a_checkpoint_of_a_transaction_yet_to_come_is_refused(store: PostgresStore) -> None:
    """After a physical restore the ids go back as well, and a checkpoint without an event is all there is."""
    install(store.connection, SUMMARY)
    checkpoint.begin(store.connection, SUMMARY.name, SUMMARY.version)
    store.connection.execute("update checkpoints set xid = '999999999'")
    with pytest.raises(CheckpointRefused):
        Projector(store.connection, SUMMARY)


@pytest.mark.parametrize("how", ["truncated", "deleted"])
def test_a_checkpoint_at_an_event_that_was_scavenged_is_taken(store: PostgresStore, how: str) -> None:
    install(store.connection, SUMMARY)
    lives.write(store.connection, 7, 1)
    Projector(store.connection, SUMMARY).catch_up()
    [last] = store.read("order-000000", backwards=True, limit=1)
    store.append("order-000000", [NewEvent("OrderViewed", {})])
    if how == "deleted":
        store.delete("order-000000")
    else:
        store.set_metadata("order-000000", StreamMetadata(truncate_before=last.version + 1))
    assert store.scavenge() >= last.version
    assert Projector(store.connection, SUMMARY).place == last.place


@pytest.mark.fault
@pytest.mark.parametrize("how", ["a physical backup", "a standby"])
@pytest.mark.parametrize("since", [0, 20])
def test_in_a_copy_of_the_cluster_that_is_behind_a_newer_checkpoint_is_refused(
    own: OwnStarter, unique: str, how: str, since: int
) -> None:
    """The system's identifier is the same, so there is nothing to adopt; transaction ids are given out once more."""
    first, copy = own("postgres"), own("postgres")
    create(create_schema(first.endpoint, unique))
    with connect(in_schema(first.endpoint.url, unique)) as connection:
        install(connection, SUMMARY)
        lives.write(connection, 7, 5)
        moving.copy_cluster(first.endpoint, copy, *(["--write-recovery-conf"] if how == "a standby" else []))
        lives.write(connection, 8, 10, "lost-")
        Projector(connection, SUMMARY).catch_up()
        [newer] = connection.execute("select * from checkpoints").fetchall()  # as if it were kept elsewhere
    first.kill()
    copy.start()
    with connect(in_schema(copy.endpoint.url, unique)) as connection:
        if how == "a standby":
            connection.execute("select pg_promote()")
        lives.write(connection, 9, since, "since-")
        assert PostgresStore(connection).append("note-1", [note("new")]) == 1
        values = ", ".join(["%s"] * len(newer))
        connection.execute(f"insert into checkpoints values ({values})", newer)  # noqa: S608
        with pytest.raises(CheckpointRefused):
            Projector(connection, SUMMARY)
