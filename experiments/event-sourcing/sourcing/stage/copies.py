"""Where a person's data ends up besides the events, and a search that finds it there byte by byte."""

import base64
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import sql

from shared import kafka
from shared.postgres import Connection
from shared.servers.server import Endpoint
from sourcing.audit import everything
from sourcing.event import NewEvent
from sourcing.forgetting.personal import NotClassified
from sourcing.repository import Reader, Repository
from sourcing.shop.customer import Customer
from sourcing.store import EventStore

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
HANDLED = {"CustomerRegistered": REGISTER, "CustomerMoved": MOVE, "Purchased": SPEND}

OVERWRITE = """
update events set data = convert_to(replace(convert_from(data, 'utf8'), %s, 'anonymous'), 'utf8') where stream = %s
"""


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


def delete(connection: Connection, ident: str) -> None:
    """Forget by removing all that the database has of the person: stream, row and snapshot."""
    connection.execute("delete from events where stream = %s", [f"customer-{ident}"])
    connection.execute("delete from customers where customer = %s", [ident])
    connection.execute("delete from customer_snapshots where customer = %s", [ident])


def anonymise(connection: Connection, ident: str, person: Person) -> None:
    """Forget by writing over all that the database has of the person. The past is changed to do it."""
    for text in person.texts:
        connection.execute(OVERWRITE, [text, f"customer-{ident}"])
    connection.execute("update customers set name = 'anonymous', email = '', address = '' where customer = %s", [ident])
    connection.execute("delete from customer_snapshots where customer = %s", [ident])


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


def search_files(folders: Iterable[Path], searches: Mapping[str, Sequence[bytes]]) -> dict[str, Counter[Where]]:
    """Files below the folders that hold any of it. Each file is read once, for all of the searches."""
    found: dict[str, Counter[Where]] = {name: Counter() for name in searches}
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
