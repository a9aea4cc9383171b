"""Shops that keep people in different ways, where their data ends up, and a search that finds it there byte by byte."""

import base64
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import sql

from shared import codec, kafka
from shared.experiment import Run
from shared.postgres import Connection, connect, create_schema
from shared.servers.handle import Handle
from shared.servers.server import Endpoint
from sourcing.audit import everything
from sourcing.event import NewEvent, data_of
from sourcing.forgetting import vault
from sourcing.forgetting.personal import SHOP, NotClassified, Personal, SealingStore, open_fields, opening
from sourcing.forgetting.vault import Seat, Vault, WrongMasterKey, master_key
from sourcing.postgres import PostgresStore
from sourcing.postgres import create as create_store
from sourcing.repository import Reader, Repository, as_stored
from sourcing.shop.customer import Customer
from sourcing.stage.snapshot_costs import timed
from sourcing.store import EventStore

K = TypeVar("K")
# The simplest read model and the simplest snapshots that there can be.
SCHEMA = """
create table customers (
    customer text primary key, name text not null default '', email text not null default '',
    address text not null default '', spent bigint not null default 0
);
create table customer_snapshots (customer text primary key, version bigint not null, state text not null);
"""
REGISTER = "insert into customers (customer, name, email) values (%(customer)s, %(name)s, %(email)s)"
MOVE = "update customers set address = %(address)s where customer = %(customer)s"
SPEND = "update customers set spent = spent + %(cents)s where customer = %(customer)s"
STATE = Personal("customer", ("name", "email", "address"))  # what is personal in a row or snapshot of a customer
PERSONAL_BYTES = "select avg(octet_length(data)) from events where type <> 'Purchased'"
HANDLED = {"CustomerRegistered": REGISTER, "CustomerMoved": MOVE, "Purchased": SPEND}


class Where(StrEnum):
    """Places in which a copy may lie."""

    EVENTS = "events"
    READ_MODEL = "read model"
    SNAPSHOTS = "snapshots"
    TOPIC = "Kafka topic"
    BACKUP = "backup"
    FILES = "data files"
    LOG = "write-ahead log"
    OTHER = "elsewhere"  # other tables and files, the server's log among them


TABLES = {"events": Where.EVENTS, "customers": Where.READ_MODEL, "customer_snapshots": Where.SNAPSHOTS}


@dataclass(frozen=True)
class Person:
    """Somebody and what they bought, in cents."""

    name: str
    email: str
    address: str
    purchases: tuple[int, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return self.name, self.email, self.address


def people(rng: random.Random, count: int) -> dict[str, Person]:
    """Pseudonym -> person. Each text is unlike any other in the world."""
    found = {}
    for _ in range(count):
        tag = f"{rng.getrandbits(48):012x}"
        purchases = tuple(rng.randrange(100, 50_000) for _ in range(rng.randrange(1, 5)))
        person = Person(f"Zoë Tester-{tag}", f"zoe.{tag}@example.org", f"Grüner Weg {tag}", purchases)
        found[f"{rng.getrandbits(48):012x}"] = person
    return found


def register(store: EventStore, persons: Mapping[str, Person]) -> None:
    """The events of their lives."""
    customers = Repository(store, Customer)
    for ident, person in persons.items():
        customer = Customer(ident)
        customer.register(person.name, person.email)
        customer.move(person.address)
        for cents in person.purchases:
            customer.buy(cents)
        customers.save(customer)


def project(connection: Connection, store: EventStore, read: Reader) -> int:
    """Rebuild the read model from zero, in one transaction; returns all the money spent, in cents."""
    with connection.transaction():
        connection.execute("truncate customers")
        for event in everything(store):
            for type_, data in read(event):
                connection.execute(HANDLED[type_], data)
        row = connection.execute("select coalesce(sum(spent), 0) from customers").fetchone()
    return int(row[0]) if row else 0


def snapshot(connection: Connection, customers: Repository[Customer], idents: Iterable[str]) -> None:
    for customer in map(customers.load, idents):
        state = msgspec.json.encode(customer.state()).decode()
        connection.execute("insert into customer_snapshots values (%s, %s, %s)", [customer.id, customer.version, state])


def publish(broker: Endpoint, topic: str, store: EventStore) -> None:
    """Every event as it lies in the store."""
    producer = kafka.producer(broker)
    for event in everything(store):
        producer.produce(topic, event.data, event.stream, headers={"type": event.type})
    producer.flush(30)


def backup(connection: Connection, folder: Path) -> None:
    """Every table of the schema into a file of its own, as pg_dump would write its rows."""
    folder.mkdir(parents=True)
    for table in tables(connection):
        copy = sql.SQL("copy {} to stdout").format(sql.Identifier(table))
        with (folder / table).open("wb") as file, connection.cursor() as cursor, cursor.copy(copy) as rows:
            file.writelines(bytes(row) for row in rows)


def restore(connection: Connection, file: Path) -> None:
    """A table from its file of a backup; the table must be there, and empty."""
    copy = sql.SQL("copy {} from stdin").format(sql.Identifier(file.name))
    with connection.cursor() as cursor, cursor.copy(copy) as rows:
        rows.write(file.read_bytes())


def tables(connection: Connection) -> list[str]:
    query = "select table_name from information_schema.tables where table_schema = current_schema and table_type = %s"
    return [name for (name,) in connection.execute(query, ["BASE TABLE"]).fetchall()]


def needles(texts: Iterable[str | bytes]) -> list[bytes]:
    """What to search for: the bytes, and the hex digits that a bytea is printed as."""
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    return [*raw, *(value.hex().encode() for value in raw)]


def search_tables(connection: Connection, wanted: Sequence[bytes]) -> Counter[Where]:
    """Rows that hold any of it, by the place that the table is; of tables unknown here, OTHER."""
    found: Counter[Where] = Counter()
    for table in tables(connection):
        rows = connection.execute(sql.SQL("select t::text from {} as t").format(sql.Identifier(table)))
        found[TABLES.get(table, Where.OTHER)] += sum(_holds(text.encode(), wanted) for (text,) in rows)
    return found


def search_topic(broker: Endpoint, topic: str, wanted: Sequence[bytes]) -> Counter[Where]:
    """Records of the topic that hold any of it, in key or value."""
    records = kafka.read_all(broker, topic)
    texts = ((kafka.key(record) or b"") + b" " + (kafka.value(record) or b"") for record in records)
    return Counter({Where.TOPIC: sum(_holds(text, wanted) for text in texts)})


def search_files(folders: Iterable[Path], searches: Mapping[K, Sequence[bytes]]) -> dict[K, Counter[Where]]:
    """Files below the folders that hold any of it. Each file is read once, for all of the searches."""
    found: dict[K, Counter[Where]] = {name: Counter() for name in searches}
    for path, content in _contents(folders):
        where = Where.LOG if "pg_wal" in path.parts else Where.FILES if "base" in path.parts else Where.OTHER
        for name, wanted in searches.items():
            found[name][where] += _holds(content, wanted)
    return found


def search_backup(folder: Path, wanted: Sequence[bytes]) -> Counter[Where]:
    """Lines of the backup that hold any of it: one is one row."""
    lines = (line for _, content in _contents([folder]) for line in content.splitlines())
    return Counter({Where.BACKUP: sum(_holds(line, wanted) for line in lines)})


def _contents(folders: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in {path.resolve() for folder in folders for path in folder.rglob("*") if path.is_file()}:
        try:
            yield path, path.read_bytes()
        except FileNotFoundError:  # Postgres renames and removes its own files while we look
            continue


def _holds(content: bytes, wanted: Sequence[bytes]) -> bool:
    return any(value in content for value in wanted)


def unclassified(store: EventStore, ident: str, names: Iterable[str]) -> list[str]:
    """Those of the fields that an event of the person may not have, since nobody has said what they are."""
    refused = []
    for name in names:
        try:
            store.append(f"customer-{ident}", [NewEvent("CustomerRegistered", {"customer": ident, name: "Zoë"})])
        except NotClassified as error:
            refused += [name] if repr(name) in str(error) else []
    return refused


def new_secret(file: Path) -> None:
    """A master key in a file, as an operator makes one. The caller sees to it that it does not outlive its use."""
    with open(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as opened:  # noqa: PTH123
        opened.write(base64.b64encode(AESGCM.generate_key(256)))


# The shops.


@dataclass(frozen=True)
class Keeping:
    """One way to keep people, and to forget one of them."""

    name: str
    forget: "Callable[[Shop], object]"
    sealed: bool = False  # by the vault, on the way into the store
    copies_opened: bool = False  # read model and snapshots are made of what was sealed, and is opened for them


@dataclass(frozen=True)
class Shop:
    """One way of keeping people, and the one who is to be forgotten. `read` shows people, `copy` feeds the copies."""

    connection: Connection
    store: EventStore
    vault: Vault
    read: Reader
    copy: Reader
    topic: str
    backup: Path
    people: dict[str, Person]
    gone: str
    spent: int  # cents, by all of them

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be found nowhere any more."""
        return self.people[self.gone].texts

    @property
    def customers(self) -> Repository[Customer]:
        return Repository(self.store, Customer, self.read)


def open_shop(run: Run, server: Handle, way: Keeping, number: int, count: int, secret: Path) -> Shop:
    conninfo = create_schema(server.endpoint, f"shop_{number}")
    create_store(conninfo)
    connection = connect(conninfo)
    run.cleanup(connection.close)
    connection.execute(SCHEMA + vault.SCHEMA.read_text())
    keys = connect(conninfo)
    run.cleanup(keys.close)
    safe = Vault(keys, master_key({vault.FILE_VARIABLE: str(secret)}))
    store: EventStore = PostgresStore(connection)
    read: Reader = as_stored
    if way.sealed:
        store, read = SealingStore(store, safe, SHOP), opening(safe, SHOP)
    copy = read if way.copies_opened else as_stored
    everybody = people(random.Random(f"{run.seed} {way.name}"), count)
    register(store, everybody)
    spent = project(connection, store, copy)
    snapshot(connection, Repository(store, Customer, copy), everybody)
    topic, folder = run.topic(f"customers_{number}", partitions=1), run.folder / f"backup_{number}"
    publish(run.endpoints["kafka"], topic, store)
    backup(connection, folder)
    if not run.keep:
        run.cleanup(lambda: shutil.rmtree(folder))
    return Shop(connection, store, safe, read, copy, topic, folder, everybody, next(iter(everybody)), spent)


def search(
    run: Run, server: Handle, wanted: dict[Keeping, tuple[Shop, tuple[str, ...]]]
) -> dict[Keeping, Counter[Where]]:
    """Copies of the texts by way and place, with nothing left out that belongs to a shop."""
    wanted_bytes = {way: needles(texts) for way, (_, texts) in wanted.items()}
    [(directory,)] = next(iter(wanted.values()))[0].connection.execute("show data_directory").fetchall()
    found = search_files([server.place.folder, Path(directory)], wanted_bytes)
    for way, (shop, _) in wanted.items():
        found[way] += search_tables(shop.connection, wanted_bytes[way])
        found[way] += search_topic(run.endpoints["kafka"], shop.topic, wanted_bytes[way])
        found[way] += search_backup(shop.backup, wanted_bytes[way])
    return found


def tidy(shop: Shop) -> None:
    """All that Postgres cleans up by itself is cleaned up."""
    shop.connection.execute("vacuum")
    shop.connection.execute("checkpoint")


def rebuilt(shop: Shop) -> int:
    """All the money, by a read model that is built again from zero."""
    return project(shop.connection, shop.store, shop.copy)


def keys_of(shop: Shop) -> bytes:
    """The wrapped key of the person to be forgotten."""
    query = "select wrapped from vault_keys where subject = %s"
    [(wrapped,)] = shop.connection.execute(query, [shop.gone]).fetchall()
    return bytes(wrapped)


def read_again(connection: Connection, shop: Shop, secret: Path) -> int:
    """Fields of the forgotten person that open with the restored keys and the master key of that file."""
    stream, restored = f"customer-{shop.gone}", Vault(connection, master_key({vault.FILE_VARIABLE: str(secret)}))
    sealed = {name: text for event in shop.store.read(stream) for name, text in data_of(event).items()}
    try:
        texts = [restored.open(Seat(stream, shop.gone, name), sealed[name]) for name in STATE.fields]
    except WrongMasterKey:
        return 0
    return len(set(texts) & set(shop.texts))


@contextmanager
def restored_keys(server: Handle, shop: Shop) -> Iterator[Connection]:
    """The key table out of the shop's backup, in a schema of its own."""
    with connect(create_schema(server.endpoint, "restored")) as connection:
        connection.execute(vault.SCHEMA.read_text())
        restore(connection, shop.backup / "vault_keys")
        yield connection


def files_with(shop: Shop, content: bytes) -> int:
    """How many of the database's files hold it."""
    [(directory,)] = shop.connection.execute("show data_directory").fetchall()
    return search_files([Path(directory)], {"key": [content]})["key"].total()


def rotate(shop: Shop, secret: Path) -> int:
    """Wrap all keys by a new master key, and destroy the old one; returns how many keys there are."""
    secret.unlink()
    new_secret(secret)
    return shop.vault.rotate(master_key({vault.FILE_VARIABLE: str(secret)}))


def names_in_snapshots(shop: Shop) -> dict[str, str]:
    """Pseudonym -> the name, as far as it can be opened."""
    rows = shop.connection.execute("select customer, state from customer_snapshots").fetchall()
    states = {ident: {**codec.decode(state), "customer": ident} for ident, state in rows}
    opened = {ident: open_fields(shop.vault, STATE, f"customer-{ident}", state) for ident, state in states.items()}
    return {ident: str(state["name"]) for ident, state in opened.items()}


def personal_bytes(shop: Shop) -> float:
    """Of a personal event's data, on average."""
    [(size,)] = shop.connection.execute(PERSONAL_BYTES).fetchall()
    return float(size)


def load_times(shop: Shop) -> list[float]:
    """Milliseconds that each person's load takes."""
    return [timed(lambda: shop.customers.load(ident)) for ident in shop.people]  # noqa: B023
