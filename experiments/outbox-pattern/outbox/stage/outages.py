"""Postgres of the run's own with busy other tables, and shops whose log relay goes away and comes back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from outbox.operating.slots import MB, Slot, first_missing, log_on_disk, look
from outbox.relay import wal
from outbox.relay.publisher import Publisher
from outbox.relay.wal import WalRelay
from outbox.service import write_with_outbox
from outbox.stage.shop import Shop, at_work, noted, serve
from outbox.table import create
from shared import kafka
from shared.about import About
from shared.errors import LabError
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect, create_schema
from shared.run import Run, slug
from shared.servers.handle import Handle, own_instance
from shared.tap import Tap
from shared.wait import until
from shared.worker import Worker

CHUNK = 8  # MB of other tables' traffic between two checkpoints
# The log's own size small, so that what is on the disk is what the slot keeps.
SETTINGS = {"max_wal_size": "32MB", "min_wal_size": "32MB"}
HEARTBEAT = 0.5  # seconds after which a reader that has no news says how far it is
CLICKS = "insert into clicks (page) select repeat(md5(i::text), 250) from generate_series(1, %s) as i"  # 8 kB each


@dataclass
class Site:
    """A Postgres of the run's own, with a busy table that has nothing to do with the outbox."""

    server: Handle
    connection: Connection


@dataclass
class Outage:
    """One shop whose relay goes away: its events before, in the outage, and after it."""

    about: About  # the way back
    shop: Shop
    tap: Tap
    began: int = 0  # when the relay went, in ns as in the history

    def ended(self, note: str) -> None:
        """Into the history: it was, from `began` to now."""
        self.tap.recorder.add(Op(self.began, "relay", Action.FAULT, Outcome.OK, note=note, until=now()))


def open_site(run: Run, keep: str) -> Site:
    """Start one, with so much `max_slot_wal_keep_size`."""
    # The names of these settings have underscores, which Run.own would make dots of.
    settings = {**SETTINGS, "max_slot_wal_keep_size": keep}
    server = run.stack_of_things.enter_context(own_instance("postgres", run.stack.settings, None, settings))
    connection = run.stack_of_things.enter_context(connect(server.endpoint.url))
    connection.execute("create table clicks (id bigint generated always as identity, page text)")
    connection.execute("alter table clicks alter page set storage external")  # not compressed: bytes are bytes
    return Site(server, connection)


def shop_at(run: Run, site: Site, name: str, count: int) -> Shop:
    """An outbox there, with a slot, which bears the name of the schema."""
    schema = f"{run.name}_{name}"
    conninfo = create_schema(site.server.endpoint, schema)
    create(conninfo)
    wal.set_up(conninfo, schema, schema)
    return Shop(conninfo, run.endpoints["kafka"], run.topic(name), run.history_file(name), run.seed, count, slot=schema)


@contextmanager
def open_outage(about: About, site: Site, count: int) -> Iterator[Outage]:
    """A shop with its consumer."""
    name = slug(about.variant)
    shop = shop_at(about.run, site, name, count)
    with Tap("consumer", shop.broker, [shop.topic], about.run.recorder(name, "experiment")) as tap:
        yield Outage(about, shop, tap)


@contextmanager
def relaying(shop: Shop) -> Iterator[None]:
    """The log relay at work, in a thread."""
    with connect(shop.conninfo) as connection, Recorder(shop.history, "relay") as recorder:
        relay = WalRelay(shop.conninfo, connection, Publisher(shop.broker, on_acknowledged=noted(recorder)), shop.slot)
        relay.heartbeat = HEARTBEAT
        with at_work(relay):
            yield


def start_service(run: Run, shop: Shop) -> Worker:
    """The service, which has begun to write the shop's events."""
    service = run.worker("service", serve, shop, write_with_outbox)
    with connect(shop.conninfo) as connection:
        query = "select exists (select from outbox where starts_with(aggregate_id, %s))"
        until("the service to write", lambda: (connection.execute(query, [shop.prefix]).fetchone() or [False])[0])
    return service


def press(about: About, site: Site, slot: str, chunks: int, alarm: int | None = None) -> list[Slot]:
    """Traffic of another table, in chunks with a checkpoint after each; the slot after every chunk.

    With `alarm`, go on only when it is not on, as a reader that is alive may be behind for a moment.
    """
    seen = [look(site.connection, slot)]
    for number in range(1, chunks + 1):
        site.connection.execute(CLICKS, [CHUNK * 1_000_000 // 8_000])
        site.connection.execute("checkpoint")
        if alarm is not None:
            until("the slot to move", lambda: not look(site.connection, slot).alarm(alarm))
        seen.append(look(site.connection, slot))
        kept = {"log kept for the slot": seen[-1].kept, "log on the disk": log_on_disk(site.connection)}
        for name, size in kept.items():
            about.figure(name, size / MB, "MB", x=float(number * CHUNK), x_label="MB written by others")
    return seen


def try_to_read(shop: Shop) -> str:
    """What a log relay says when it is started; empty when it starts."""
    try:
        with relaying(shop):
            return ""
    except LabError as error:
        return str(error)


def first_missing_of(shop: Shop) -> int | None:
    """Asked of the broker: it knows best what was published."""
    published = [kafka.headers(m)["ce_id"].decode() for m in kafka.read_all(shop.broker, shop.topic)]
    with connect(shop.conninfo) as connection:
        return first_missing(connection, published)
