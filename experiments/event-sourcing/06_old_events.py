"""Events of 2019 and 2021 are read by the program of 2024: which ways give what was sold, and at what price?

A shop's orders were written by three programs. They are read through upcasters, rewritten into a new store, edited
where they lie, and read in a hurry, as wrong/misreading.py has it.
"""

import time

from sourcing.evolution.rewriting import Window, prepare, rewrite, verify
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository, as_stored
from sourcing.shop.evolved import EvolvedOrder, upcasters
from sourcing.stage.generations import rewrite_and_die
from sourcing.stage.old_shop import Shop, connect, content, load_in_turns, open_shop
from sourcing.wrong import misreading

from shared import faults
from shared.experiment import Experiment, Run
from shared.history import History

experiment = Experiment(
    title="Old events",
    servers=("postgres",),
    topics=(
        "I.2/event-versioning/schema-evolution",
        "I.2/event-versioning/upcasting-events",
        "I.2/challenges/event-schema-evolution",
    ),
)
LAZY, EAGER, EDITED = "upcast on read", "rewritten", "edited in place"
KILLED_AT = 3  # the batch in which the rewriting is killed
EVOLUTION = "I.2/challenges/event-schema-evolution"
SCHEMA, UPCASTING = "I.2/event-versioning/schema-evolution", "I.2/event-versioning/upcasting-events"


@experiment.run
def main(run: Run) -> None:
    count, lines = run.pick((60, 10), (120, 50), (600, 100))
    run.parameters.update({"orders": count, "lines per order": lines})
    with run.step(f"{count} orders by the programs of 2019, 2021 and 2024"):
        conninfo = run.schema("_shop")
        shop = open_shop(run, conninfo, count, lines)
        edited = open_shop(run, run.schema("_edited"), count, lines)
    with run.step("read in a hurry"):
        claim_hurry(run, shop)
    with run.step(LAZY):
        claim_lazy(run, shop)
    with run.step(EDITED):
        claim_edited(run, edited)
    with run.step(f"{EAGER}, killed and started again"):
        target = claim_eager(run, shop, conninfo)
    with run.step("what both cost"):
        claim_costs(run, shop, target, run.pick(smoke=3, demo=9, full=15))


# Reading.


def claim_hurry(run: Run, shop: Shop) -> None:
    ways = misreading.newest_only, misreading.with_defaults, misreading.invoice, misreading.statistics
    totals = {way: shop.misread(way) for way in ways}
    truth = [sale.total for sale in shop.sold]
    crashed = totals[misreading.newest_only].count(None)
    low = sum(found != right for found, right in zip(totals[misreading.with_defaults], truth, strict=True))
    one, other = totals[misreading.invoice], totals[misreading.statistics]
    differ = sum(first != second for first, second in zip(one, other, strict=True))
    old = shop.begun_in_2019
    claims = (
        (
            "trusts the newest schema",
            "a reader that knows the newest schema only crashes on every order of 2019",
            crashed,
        ),
        ("a default for what is missing", "the KeyError made to go away: of every order of 2019 a wrong total", low),
        ("ifs in every reader", "every reader asks the data what they are: two readers come to two totals", differ),
    )
    for variant, text, wrong in claims:
        holds, fact = 0 < wrong <= old == crashed == low, f"{wrong} of {len(truth)} orders; {old} are of 2019"
        run.claim(text, holds, topics=[SCHEMA, EVOLUTION], fact=fact, variant=variant, wrong_way=True)
        run.figure("orders read wrongly", wrong, "orders", variant=variant, wrong_way=True)


def claim_lazy(run: Run, shop: Shop) -> None:
    steps = upcasters()
    right = shop.right(steps)
    run.figure("orders read wrongly", len(shop.sold) - right, "orders", variant=LAZY)
    run.about(LAZY, topics=[UPCASTING, SCHEMA]).claim(
        "through upcasters, a rename, a split, a dropped event and two changes of a field fold to what was sold",
        right == len(shop.sold) and steps.taken > 0,
        fact=f"{right} of {len(shop.sold)} orders, {steps.taken:,} steps",
    )
    readable = shop.readable_in_2021()
    run.about(LAZY, topics=[EVOLUTION, UPCASTING]).claim(
        "the program of 2021 refuses the events of 2024 by their schema version: deploy readers before writers",
        0 < readable < len(shop.sold),
        fact=f"it reads {readable} of {len(shop.sold)} orders, and names the first event of the others that is too new",
    )


# Rewriting.


def claim_edited(run: Run, shop: Shop) -> None:
    digest, readable = shop.digest(), shop.readable_in_2021()
    edited, right = misreading.edit_in_place(shop.store.connection), shop.right(upcasters())
    after = shop.readable_in_2021()
    run.about(EDITED, wrong_way=True, topics=[EVOLUTION, SCHEMA]).claim(
        "edited in place: the audit finds another hash than it noted, and the old program is locked out",
        edited > 0 and right == len(shop.sold) and shop.digest() != digest and after < readable,
        fact=f"{edited:,} events changed; the program of 2021 read {readable} orders, now {after}",
    )


def claim_eager(run: Run, shop: Shop, conninfo: str) -> PostgresStore:
    """Rewrite in one go; and again beside it, killed in both windows."""
    digest, readable = shop.digest(), shop.readable_in_2021()
    whole, killed = run.schema("_whole"), run.schema("_killed")
    prepare(whole)
    target, began = connect(run, whole), time.perf_counter()
    copied = rewrite(shop.store, target.connection, upcasters())
    run.figure("rewriting", copied.read / (time.perf_counter() - began), "events/s", variant=EAGER)
    right = shop.right(as_stored, target)
    run.about(EAGER, topics=[EVOLUTION, SCHEMA]).claim(
        "rewritten into a new store, every order folds as before and needs no step; the old store is as it was",
        verify(shop.store, target, upcasters()) == right == len(shop.sold)
        and (shop.digest(), shop.readable_in_2021()) == (digest, readable),
        fact=f"{copied.read:,} events became {copied.written:,}; {right} of {len(shop.sold)} orders the same",
    )
    places = die_and_go_on(run, shop, conninfo, killed, copied.read)
    same = content(target) == content(resumed := connect(run, killed)) and bool(content(target))
    again = rewrite(shop.store, resumed.connection, upcasters())
    run.about(EAGER, topics=[EVOLUTION]).claim(
        "a rewriting that is killed in any window goes on where it was, and comes to the same events and ids",
        same and again == (0, 0) and all(0 < copied_then < copied.read for copied_then in places),
        fact=f"killed with {' and '.join(f'{place:,}' for place in places)} of {copied.read:,} events copied",
    )
    return target


def die_and_go_on(run: Run, shop: Shop, source: str, target: str, total: int) -> list[int]:
    """Kill it in each window, and let it end. Returns how many events were copied at each kill."""
    prepare(target)
    store, places = connect(run, target), list[int]()
    for window in Window:
        history = run.history_file(f"killed {window}".replace(" ", "-"))
        arguments = source, target, total // 12, history, window, KILLED_AT
        run.worker(f"rewriting-{len(places)}", rewrite_and_die, *arguments).wait()
        faults.require(History.read(history), f"SIGKILL {window}")
        row = store.connection.execute("select count(*) from rewritten").fetchone() or (0,)
        places.append(int(row[0]))
    rewrite(shop.store, store.connection, upcasters())
    return places


def claim_costs(run: Run, shop: Shop, target: PostgresStore, rounds: int) -> None:
    """Loads of the same old orders from both stores, and of today's orders, in turns."""
    steps = upcasters()
    old, new = shop.sold[0::6], shop.sold[2::6]  # begun and ended in 2019, and in 2024
    ways = {
        LAZY: (Repository(shop.store, EvolvedOrder, steps), old),
        EAGER: (Repository(target, EvolvedOrder), old),
        "written today": (Repository(shop.store, EvolvedOrder, steps), new),
    }
    samples, taken = load_in_turns(ways, steps, rounds)
    for way, found in samples.items():
        run.figure("load of one order", found, "ms", variant=way)
    for way, store in ((LAZY, shop.store), (EAGER, target)):
        row = store.connection.execute("select pg_total_relation_size('events')").fetchone() or (0,)
        run.figure("bytes of events, indexes included", int(row[0]), "bytes", variant=way)
    each = taken[LAZY] / len(samples[LAZY])
    run.about(LAZY, topics=[UPCASTING, EVOLUTION]).claim(
        "on read, every load of an old event pays for its steps; rewritten, they are paid once, with a second store",
        each > 0 == taken[EAGER] == taken["written today"],
        fact=f"{each:.0f} steps per load of an old order, 0 per load of a rewritten one or one of today",
    )


if __name__ == "__main__":
    experiment.main()
