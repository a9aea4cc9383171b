"""The day of the disaster: the database's cluster is gone, a dump of it is restored into a fresh one, and all goes on.

A fresh cluster's transaction ids begin at some hundreds (sliceworkz/eventstore#143: the same in an event store). The
relay is the cursor's: it is the one that reads by them.
"""

from dataclasses import dataclass, replace

from outbox.relay.reading import Place, Reader
from outbox.stage.processes import Shop, make_relay
from outbox.table import COMMAND, TABLE, create, insert_event
from outbox.wrong.positions import ByPair
from shared import home, kafka, moving
from shared.errors import NotAdopted
from shared.experiment import Run
from shared.postgres import connect, create_schema, in_schema
from shared.servers.server import Endpoint

BARE = ByPair.after.replace("outbox_xid", "")  # WRONG here: as if ids of transactions were good everywhere
NEW = 3  # events after the restore


@dataclass(frozen=True)
class Restored:
    """Event ids, but for the refusal."""

    pending: list[str]  # in the dump, and not yet published
    refusal: str  # what the relay said before the outbox was adopted
    bare: list[str]  # what the query gets that compares with the cluster's own ids
    written: list[str]  # after the adoption
    read: list[str]  # by a reader from the first row, when all that was written
    published: list[str]  # in the topic at the end


def move(source: Endpoint, target: Endpoint, shop: Shop) -> Restored:
    """Half of the shop's events published, all dumped; the rest is published by a relay on the other cluster."""
    schema = shop.topic.replace(".", "_")
    create(conninfo := create_schema(source, schema))
    events = list(shop.events())
    with connect(conninfo) as connection, connect(target.url) as fresh:
        moving.age(connection, max(0, moving.newest_id(fresh) + 3_000 - moving.newest_id(connection)))
        for event in events[: len(events) // 2]:
            insert_event(connection, event, shop.topic)
        make_relay(replace(shop, conninfo=conninfo), "cursor", connection).step()
        for event in events[len(events) // 2 :]:
            insert_event(connection, event, shop.topic)
    moving.restore(target, moving.dump(source, schema))
    return _go_on(replace(shop, conninfo=in_schema(target.url, schema)), [event.id for event in events])


def claim(run: Run, moved: Restored, topics: list[str]) -> None:
    """What held, and what the bare query does."""
    run.claim(
        "restored into a fresh cluster, whose transaction ids are lower: until somebody adopts the outbox, the relay "
        "refuses and names the command",
        f"run `{COMMAND} adopt` first" in moved.refusal,
        topics=topics,
        fact=moved.refusal,
    )
    run.claim(
        "adopted, the relay goes on from its checkpoint: what was pending is published, then the new, nothing twice",
        moved.read[-len(moved.pending + moved.written) :] == moved.pending + moved.written
        and sorted(moved.published) == sorted(moved.read),
        topics=topics,
        fact=f"{len(moved.pending):,} pending and {len(moved.written)} new of {len(moved.read):,} events published",
    )
    run.claim(
        "read as if a transaction's id were good in every cluster, the same rows are there, and no reader gets one",
        not moved.bare and len(moved.pending) > 0,
        topics=topics,
        fact=f"{len(moved.bare)} of {len(moved.pending):,} pending events",
        variant="ids of another cluster",
        wrong_way=True,
        source="sliceworkz/eventstore#143",
    )


def _go_on(shop: Shop, before: list[str]) -> Restored:
    new = list(replace(shop, count=NEW, prefix="new").events())
    with connect(shop.conninfo) as connection:
        refusal = _refusal(shop)
        bare = connection.execute(
            f"select id::text from outbox where {BARE} order by xid, position",  # noqa: S608
            {"xid": "0", "position": 0},
        ).fetchall()
        home.adopt(connection, TABLE, COMMAND)
        for event in new:
            insert_event(connection, event, shop.topic)
        make_relay(shop, "cursor", connection).step()
        read = [row[5] for rows in Reader(connection, Place()).pages(shop.count + NEW) for row in rows]
    published = [kafka.headers(message)["ce_id"].decode() for message in kafka.read_all(shop.broker, shop.topic)]
    pending = before[len(before) // 2 :]
    return Restored(pending, refusal, [one for (one,) in bare], [event.id for event in new], read, published)


def _refusal(shop: Shop) -> str:
    with connect(shop.conninfo) as connection:
        try:
            make_relay(shop, "cursor", connection)
        except NotAdopted as error:
            return str(error)
    return ""
