"""A person asks to be forgotten, and events are never changed. What is left of them, and what does forgetting break?

The same people in four shops. One person of each is forgotten, in the popular ways and in the right one; then every
table, every file of the database with its log, the topic and the backup are searched byte by byte for name, e-mail and
address. The ways differ in the function that forgets (`delete_stream` and `anonymise` of wrong/forgetting.py, or
`Vault.forget`), and in which copies are encrypted.
"""

from collections import Counter
from pathlib import Path

from sourcing.forgetting.vault import FORGOTTEN
from sourcing.stage import copies
from sourcing.stage.copies import Keeping, Shop, Where
from sourcing.wrong import forgetting

from shared.experiment import Experiment, Run
from shared.servers.handle import Handle

experiment = Experiment(
    title="Forgetting a person",
    servers=("kafka",),
    topics=("I.2/challenges/privacy",),
)
Found = dict[Keeping, Counter[Where]]


def forget_key(shop: Shop) -> None:
    shop.vault.forget(shop.gone, "request-1")


DELETE = Keeping("delete the stream", lambda shop: forgetting.delete_stream(shop.connection, shop.gone))
ANONYMISE = Keeping("anonymise by update", lambda shop: forgetting.anonymise(shop.connection, shop.gone, shop.texts))
HALF = Keeping("seal the events only", forget_key, sealed=True, copies_opened=True)
SHRED = Keeping("crypto-shredding", forget_key, sealed=True)
ALL = DELETE, ANONYMISE, HALF, SHRED


@experiment.run
def main(run: Run) -> None:
    count = run.parameters["people per shop"] = run.pick(smoke=10, demo=100, full=400)
    server = run.own("postgres")
    secret = run.folder / "master.key"
    run.cleanup(lambda: secret.unlink(missing_ok=True))
    copies.new_secret(secret)
    shops: dict[Keeping, Shop] = {}
    for number, way in enumerate(ALL):
        with run.step(f"{way.name}: a shop, its read model, snapshots, topic and backup"):
            shops[way] = copies.open_shop(run, server, way, number, count, secret)
    wrapped = copies.keys_of(shops[SHRED])
    for way, shop in shops.items():
        way.forget(shop)
        copies.tidy(shop)
    with run.step("search every table, file and topic"):
        found = copies.search(run, server, {way: (shop, shop.texts) for way, shop in shops.items()})
        control = copies.search(run, server, {SHRED: (shops[SHRED], (shops[SHRED].gone,))})[SHRED]
    for way in ALL:
        about = run.about(way.name, wrong_way=way is not SHRED)
        for where in Where:
            about.figure("copies of the text", found[way][where], "copies", x=where)
    claim_wrong(run, shops, found)
    claim_shredded(run, found, control)
    claim_replay(run, shops[SHRED])
    claim_new_fields(run, shops[SHRED])
    with run.step("the key table comes back from a backup"):
        claim_keys(run, server, shops[SHRED], wrapped, secret)
    note_cost(run, shops)


def claim_wrong(run: Run, shops: dict[Keeping, Shop], found: Found) -> None:
    texts = {
        DELETE: "the deleted stream lives on in topic, backup and log",
        ANONYMISE: "the person made anonymous by an update lives on in topic, backup and log",
        HALF: "only the events are encrypted: the key is gone, the text is still in the read model and the snapshots",
    }
    places = {
        DELETE: (Where.TOPIC, Where.BACKUP, Where.LOG),
        ANONYMISE: (Where.TOPIC, Where.BACKUP, Where.LOG),
        HALF: (Where.READ_MODEL, Where.SNAPSHOTS, Where.BACKUP, Where.LOG),
    }
    for way, text in texts.items():
        run.about(way.name, wrong_way=True, topics=["I.2/challenges/privacy"]).claim(
            text,
            all(found[way][where] > 0 for where in places[way]),
            fact=told(found[way]),
        )
    shop = shops[DELETE]
    missing, his = shop.spent - copies.rebuilt(shop), sum(shop.people[shop.gone].purchases)
    run.about(DELETE.name, wrong_way=True, topics=["I.2/challenges/privacy"]).claim(
        "with the deleted stream money is gone from the books",
        missing == his > 0,
        fact=f"{missing / 100:.2f} EUR of {shop.spent / 100:.2f} EUR missing after a rebuild",
    )


def told(found: Counter[Where]) -> str:
    return ", ".join(f"{where} {found[where]}" for where in Where if found[where]) or "nothing anywhere"


def claim_shredded(run: Run, found: Found, control: Counter[Where]) -> None:
    looked = [where for where in Where if where is not Where.OTHER]
    run.about(SHRED.name, topics=["I.2/challenges/privacy"]).claim(
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
    run.about(SHRED.name, topics=["I.2/challenges/privacy"]).claim(
        "shredded: replay still works, the person's fields read as forgotten, and every cent is there",
        {gone.name, gone.email, gone.address} == {FORGOTTEN} and total == copies.rebuilt(shop) == shop.spent,
        fact=f"{total / 100:.2f} EUR of {shop.spent / 100:.2f} EUR, {gone.spent / 100:.2f} EUR by a person forgotten",
    )
    names = copies.names_in_snapshots(shop)
    same = sum(names[ident] == person.name for ident, person in shop.people.items())
    run.about(SHRED.name, topics=["I.2/challenges/privacy"]).claim(
        "shredded: everybody else is read as before, from events and from snapshots",
        readable == same == len(loaded) > 0 and names[shop.gone] == FORGOTTEN,
        fact=f"{readable} of {len(loaded)} others",
    )


def claim_new_fields(run: Run, shop: Shop) -> None:
    """The next release has other names and one field more, and nobody has thought of the declarations."""
    names = "full_name", "e_mail", "born"
    refused = copies.unclassified(shop.store, shop.gone, names)
    run.about(SHRED.name, topics=["I.2/challenges/privacy"]).claim(
        "a field that is new or renamed is refused until somebody has said whether it is personal, not stored openly",
        refused == [*names],
        fact=f"{len(refused)} of {len(names)} such events refused, each with the field's name",
    )


def claim_keys(run: Run, server: Handle, shop: Shop, wrapped: bytes, secret: Path) -> None:
    """The backup has the key table in it, as it was. Then the master key is rotated, and the old one destroyed."""
    left = copies.files_with(shop, wrapped)
    with copies.restored_keys(server, shop) as connection:
        back = copies.read_again(connection, shop, secret)
        run.about("keys in the backup", wrong_way=True, topics=["I.2/challenges/privacy"]).claim(
            "a key table that is in the events' backup brings everybody back, for as long as its master key exists",
            back == 3 and left > 0,
            fact=f"{back} of 3 fields read again; the deleted key still lay, wrapped, in {left} files of the database",
        )
        kept = copies.rotate(shop, secret)
        back = copies.read_again(connection, shop, secret)
    still = sum(shop.customers.load(ident).name == person.name for ident, person in shop.people.items())
    run.about(SHRED.name, topics=["I.2/challenges/privacy"]).claim(
        "after a rotation that destroys the old master key, neither backup nor leftovers of the key are of use",
        back == 0 and kept == still == len(shop.people) - 1,
        fact=f"{back} of 3 fields read again; {kept} keys wrapped anew, {still} others readable",
    )


def note_cost(run: Run, shops: dict[Keeping, Shop]) -> None:
    """What sealing costs in bytes, and a load in time."""
    for variant, shop in (("plain text", shops[ANONYMISE]), ("sealed", shops[SHRED])):
        run.figure("data of a personal event", copies.personal_bytes(shop), "bytes", variant=variant)
        run.figure("load of a customer", copies.load_times(shop), "ms", variant=variant)


if __name__ == "__main__":
    experiment.main()
