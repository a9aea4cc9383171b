"""The shops of experiment 09, one for each way to forget a person: what they keep, and what is found after it."""

import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shared.experiment import Run
from shared.postgres import Connection, connect, create_schema
from shared.servers.handle import Handle
from sourcing.event import data_of
from sourcing.forgetting import vault
from sourcing.forgetting.personal import SHOP, Personal, SealingStore, opening
from sourcing.forgetting.vault import Place, Vault, WrongMasterKey, master_key
from sourcing.postgres import PostgresStore
from sourcing.postgres import create as create_store
from sourcing.repository import Reader, Repository, as_stored
from sourcing.shop.customer import Customer
from sourcing.stage import copies
from sourcing.stage.copies import Person, Where
from sourcing.store import EventStore

DELETE, ANONYMISE = "delete the stream", "anonymise by update"
HALF, SHRED = "seal the events only", "crypto-shredding"
WAYS = DELETE, ANONYMISE, HALF, SHRED
STATE = Personal("customer", ("name", "email", "address"))  # what is personal in a row or snapshot of a customer


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
    def customers(self) -> Repository[Customer]:
        return Repository(self.store, Customer, self.read)


def open_shop(run: Run, server: Handle, way: str, number: int, count: int, secret: Path) -> Shop:
    conninfo = create_schema(server.endpoint, f"shop_{number}")
    create_store(conninfo)
    connection = connect(conninfo)
    run.cleanup(connection.close)
    connection.execute(copies.SCHEMA + vault.SCHEMA.read_text())
    keys = connect(conninfo)
    run.cleanup(keys.close)
    safe = Vault(keys, master_key({vault.FILE_VARIABLE: str(secret)}))
    store: EventStore = PostgresStore(connection)
    read: Reader = as_stored
    if way in (HALF, SHRED):
        store, read = SealingStore(store, safe, SHOP), opening(safe, SHOP)
    copy = read if way == HALF else as_stored
    people = copies.people(random.Random(f"{run.seed} {way}"), count)  # noqa: RUF100, S311
    copies.register(store, people)
    spent = copies.project(connection, store, copy)
    copies.snapshot(connection, Repository(store, Customer, copy), people)
    topic, folder = run.topic(f"customers_{number}", partitions=1), run.folder / f"backup_{number}"
    copies.publish(run.endpoints["kafka"], topic, store)
    copies.backup(connection, folder)
    if not run.keep:
        run.cleanup(lambda: shutil.rmtree(folder))
    return Shop(connection, store, safe, read, copy, topic, folder, people, next(iter(people)), spent)


def forget(shop: Shop, way: str) -> None:
    """As each way has it; then all that Postgres cleans up by itself is cleaned up."""
    if way == DELETE:
        copies.delete(shop.connection, shop.gone)
    elif way == ANONYMISE:
        copies.anonymise(shop.connection, shop.gone, shop.people[shop.gone])
    else:
        shop.vault.forget(shop.gone, "request-1")
    shop.connection.execute("vacuum")
    shop.connection.execute("checkpoint")


def search(run: Run, server: Handle, wanted: dict[str, tuple[Shop, tuple[str, ...]]]) -> dict[str, Counter[Where]]:
    """Copies of the texts by way and place, with nothing left out that belongs to a shop."""
    needles = {way: copies.needles(texts) for way, (_, texts) in wanted.items()}
    [(directory,)] = next(iter(wanted.values()))[0].connection.execute("show data_directory").fetchall()
    found = copies.search_files([server.place.folder, Path(directory)], needles)
    for way, (shop, _) in wanted.items():
        found[way] += copies.search_tables(shop.connection, needles[way])
        found[way] += copies.search_topic(run.endpoints["kafka"], shop.topic, needles[way])
        found[way] += copies.search_backup(shop.backup, needles[way])
    return found


def rebuilt(shop: Shop) -> int:
    """All the money, by a read model that is built again from zero."""
    return copies.project(shop.connection, shop.store, shop.copy)


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
        texts = [restored.open(Place(stream, shop.gone, name), sealed[name]) for name in STATE.fields]
    except WrongMasterKey:
        return 0
    return len(set(texts) & set(shop.people[shop.gone].texts))
