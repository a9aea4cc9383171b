"""A person asks to be forgotten, and events are never changed. What is left of them, and what does forgetting break?

The same people in four shops. One person of each is forgotten, by the ways that people try; then every table, every
file of the database with its log, the topic and the backup are searched byte by byte for name, e-mail and address.
"""

import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from sourcing.event import data_of
from sourcing.forgetting import vault
from sourcing.forgetting.personal import SHOP, Personal, SealingStore, open_fields, opening
from sourcing.forgetting.vault import FORGOTTEN, Place, Vault, WrongMasterKey, master_key
from sourcing.postgres import PostgresStore
from sourcing.postgres import create as create_store
from sourcing.repository import Reader, Repository, as_stored
from sourcing.shop.customer import Customer
from sourcing.stage import copies
from sourcing.stage.copies import Person, Where
from sourcing.store import EventStore

from shared import codec
from shared.experiment import Experiment, Run
from shared.postgres import Connection, connect, create_schema
from shared.servers.handle import Handle

experiment = Experiment(
    title="Forgetting a person",
    servers=("kafka",),
    topics=("I.2/challenges/privacy",),
)
DELETE, ANONYMISE = "delete the stream", "anonymise by update"
HALF, SHRED = "seal the events only", "crypto-shredding"
WAYS = DELETE, ANONYMISE, HALF, SHRED
STATE = Personal("customer", ("name", "email", "address"))  # what is personal in a row or snapshot of a customer
PERSONAL_BYTES = "select avg(octet_length(data)) from events where type <> 'Purchased'"


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


@experiment.run
def main(run: Run) -> None:
    count = run.parameters["people per shop"] = run.pick(smoke=10, demo=100, full=400)
    server = run.own("postgres")
    secret = run.folder / "master.key"
    run.cleanup(lambda: secret.unlink(missing_ok=True))
    copies.new_secret(secret)
    shops: dict[str, Shop] = {}
    for number, way in enumerate(WAYS):
        with run.step(f"{way}: a shop, its read model, snapshots, topic and backup"):
            shops[way] = open_shop(run, server, way, number, count, secret)
    wrapped = keys_of(shops[SHRED])
    for way, shop in shops.items():
        forget(shop, way)
    with run.step("search every table, file and topic"):
        found = search(run, server, {way: (shop, shop.people[shop.gone].texts) for way, shop in shops.items()})
        control = search(run, server, {SHRED: (shops[SHRED], (shops[SHRED].gone,))})[SHRED]
    for way in WAYS:
        for where in Where:
            copies_left = found[way][where]
            run.figure("copies of the text", copies_left, "copies", variant=way, wrong_way=way != SHRED, x=where)
    claim_wrong(run, shops, found)
    claim_shredded(run, found, control)
    claim_replay(run, shops[SHRED])
    claim_new_fields(run, shops[SHRED])
    with run.step("the key table comes back from a backup"):
        claim_keys(run, server, shops[SHRED], wrapped, secret)
    note_cost(run, shops)


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
    people = copies.people(random.Random(f"{run.seed} {way}"), count)
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


def claim_wrong(run: Run, shops: dict[str, Shop], found: dict[str, Counter[Where]]) -> None:
    texts = {
        DELETE: "the deleted stream lives on in topic, backup and log",
        ANONYMISE: "the person made anonymous by an update lives on in topic, backup and log",
        HALF: "with sealed events and copies that were opened, the key is gone and the text is in the copies",
    }
    places = {
        DELETE: (Where.TOPIC, Where.BACKUP, Where.LOG),
        ANONYMISE: (Where.TOPIC, Where.BACKUP, Where.LOG),
        HALF: (Where.READ_MODEL, Where.SNAPSHOTS, Where.BACKUP, Where.LOG),
    }
    for way, text in texts.items():
        run.about(way, wrong_way=True, topics=["I.2/challenges/privacy"]).claim(
            text,
            all(found[way][where] > 0 for where in places[way]),
            fact=told(found[way]),
        )
    shop = shops[DELETE]
    missing, his = shop.spent - rebuilt(shop), sum(shop.people[shop.gone].purchases)
    run.about(DELETE, wrong_way=True, topics=["I.2/challenges/privacy"]).claim(
        "with the deleted stream money is gone from the books",
        missing == his > 0,
        fact=f"{missing / 100:.2f} EUR of {shop.spent / 100:.2f} EUR missing after a rebuild",
    )


def told(found: Counter[Where]) -> str:
    return ", ".join(f"{where} {found[where]}" for where in Where if found[where]) or "nothing anywhere"


def rebuilt(shop: Shop) -> int:
    """All the money, by a read model that is built again from zero."""
    return copies.project(shop.connection, shop.store, shop.copy)


def claim_shredded(run: Run, found: dict[str, Counter[Where]], control: Counter[Where]) -> None:
    looked = [where for where in Where if where is not Where.OTHER]
    run.about(SHRED, topics=["I.2/challenges/privacy"]).claim(
        "shredded: no table, file, log, topic or backup holds name, e-mail or address",
        not found[SHRED].total() and all(control[where] > 0 for where in looked),
        fact=f"{found[SHRED].total()} copies; the same search finds the pseudonym in all {len(looked)} places",
    )


def claim_replay(run: Run, shop: Shop) -> None:
    """Everybody is loaded, the read model is built again, and every snapshot is opened."""
    loaded = {ident: shop.customers.load(ident) for ident in shop.people}
    gone = loaded.pop(shop.gone)
    readable = sum((one.name, one.email, one.address) == shop.people[ident].texts for ident, one in loaded.items())
    total = sum(one.spent for one in loaded.values()) + gone.spent
    run.about(SHRED, topics=["I.2/challenges/privacy"]).claim(
        "shredded: replay still works, the person's fields read as forgotten, and every cent is there",
        {gone.name, gone.email, gone.address} == {FORGOTTEN} and total == rebuilt(shop) == shop.spent,
        fact=f"{total / 100:.2f} EUR of {shop.spent / 100:.2f} EUR, {gone.spent / 100:.2f} EUR by a person forgotten",
    )
    rows = shop.connection.execute("select customer, state from customer_snapshots").fetchall()
    states = {ident: {**codec.decode(state), "customer": ident} for ident, state in rows}
    opened = {ident: open_fields(shop.vault, STATE, f"customer-{ident}", state) for ident, state in states.items()}
    same = sum(opened[ident]["name"] == person.name for ident, person in shop.people.items())
    run.about(SHRED, topics=["I.2/challenges/privacy"]).claim(
        "shredded: everybody else is read as before, from events and from snapshots",
        readable == same == len(loaded) > 0 and opened[shop.gone]["name"] == FORGOTTEN,
        fact=f"{readable} of {len(loaded)} others",
    )


def claim_new_fields(run: Run, shop: Shop) -> None:
    """The next release has other names and one field more, and nobody has thought of the declarations."""
    names = "full_name", "e_mail", "born"
    refused = copies.unclassified(shop.store, shop.gone, names)
    run.about(SHRED, topics=["I.2/challenges/privacy"]).claim(
        "a field that is new or renamed is refused until somebody has said whether it is personal, not stored openly",
        refused == [*names],
        fact=f"{len(refused)} of {len(names)} such events refused, each with the field's name",
    )


def keys_of(shop: Shop) -> bytes:
    """The wrapped key of the person to be forgotten."""
    query = "select wrapped from vault_keys where subject = %s"
    [(wrapped,)] = shop.connection.execute(query, [shop.gone]).fetchall()
    return bytes(wrapped)


def claim_keys(run: Run, server: Handle, shop: Shop, wrapped: bytes, secret: Path) -> None:
    """The backup has the key table in it, as it was. Then the master key is rotated, and the old one destroyed."""
    [(directory,)] = shop.connection.execute("show data_directory").fetchall()
    left = copies.search_files([Path(directory)], {"key": [wrapped]})["key"].total()
    with connect(create_schema(server.endpoint, "restored")) as connection:
        connection.execute(vault.SCHEMA.read_text())
        copies.restore(connection, shop.backup / "vault_keys")
        back = read_again(connection, shop, secret)
        run.about("keys in the backup", wrong_way=True, topics=["I.2/challenges/privacy"]).claim(
            "a key table that is in the events' backup brings everybody back, for as long as its master key exists",
            back == 3 and left > 0,
            fact=f"{back} of 3 fields read again; the deleted key still lay, wrapped, in {left} files of the database",
        )
        secret.unlink()
        run.cleanup(lambda: secret.unlink(missing_ok=True))
        copies.new_secret(secret)
        kept = shop.vault.rotate(master_key({vault.FILE_VARIABLE: str(secret)}))
        back = read_again(connection, shop, secret)
    still = sum(shop.customers.load(ident).name == person.name for ident, person in shop.people.items())
    run.about(SHRED, topics=["I.2/challenges/privacy"]).claim(
        "after a rotation that destroys the old master key, neither backup nor leftovers of the key are of use",
        back == 0 and kept == still == len(shop.people) - 1,
        fact=f"{back} of 3 fields read again; {kept} keys wrapped anew, {still} others readable",
    )


def read_again(connection: Connection, shop: Shop, secret: Path) -> int:
    """Fields of the forgotten person that open with the restored keys and the master key of that file."""
    stream, restored = f"customer-{shop.gone}", Vault(connection, master_key({vault.FILE_VARIABLE: str(secret)}))
    sealed = {name: text for event in shop.store.read(stream) for name, text in data_of(event).items()}
    try:
        texts = [restored.open(Place(stream, shop.gone, name), sealed[name]) for name in STATE.fields]
    except WrongMasterKey:
        return 0
    return len(set(texts) & set(shop.people[shop.gone].texts))


def note_cost(run: Run, shops: dict[str, Shop]) -> None:
    """What sealing costs in bytes, and a load in time."""
    for variant, shop in (("plain text", shops[ANONYMISE]), ("sealed", shops[SHRED])):
        [(size,)] = shop.connection.execute(PERSONAL_BYTES).fetchall()
        run.figure("data of a personal event", float(size), "bytes", variant=variant)
        run.figure("load of a customer", [timed_load(shop, ident) for ident in shop.people], "ms", variant=variant)


def timed_load(shop: Shop, ident: str) -> float:
    began = perf_counter()
    shop.customers.load(ident)
    return 1000 * (perf_counter() - began)


if __name__ == "__main__":
    experiment.main()
