"""Events of 2019 and 2021 are read by the program of 2024: which ways give what was sold, and at what price?

A shop's orders were written by three programs. They are read through upcasters, rewritten into a new store, edited
where they lie, and read in a hurry. What differs is who knows the old shapes: each reader (the functions of
wrong/misreading.py), `upcasters()` at every load, or the same steps once, in `rewrite`.
"""

import time

from sourcing.evolution.rewriting import Window, rewrite, verify
from sourcing.repository import Repository, as_stored
from sourcing.shop.evolved import EvolvedOrder, upcasters
from sourcing.stage import generations
from sourcing.stage.generations import Archive
from sourcing.wrong import misreading

from shared import faults
from shared.experiment import Experiment, Run
from shared.history import History
from shared.postgres import number

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
        archive = generations.open_archive(run, conninfo, count, lines)
        edited = generations.open_archive(run, run.schema("_edited"), count, lines)
    with run.step("read in a hurry"):
        claim_hurry(run, archive)
    with run.step(LAZY):
        claim_lazy(run, archive)
    with run.step(EDITED):
        claim_edited(run, edited)
    with run.step(f"{EAGER}, killed and started again"):
        target = claim_eager(run, archive, conninfo)
    with run.step("what both cost"):
        claim_costs(run, archive, target, run.pick(smoke=3, demo=9, full=15))


# Reading.


def claim_hurry(run: Run, archive: Archive) -> None:
    ways = misreading.newest_only, misreading.with_defaults, misreading.invoice, misreading.statistics
    totals = {way: archive.misread(way) for way in ways}
    truth = [sale.total for sale in archive.sold]
    crashed = totals[misreading.newest_only].count(None)
    low = sum(found != right for found, right in zip(totals[misreading.with_defaults], truth, strict=True))
    one, other = totals[misreading.invoice], totals[misreading.statistics]
    differ = sum(first != second for first, second in zip(one, other, strict=True))
    old = archive.begun_in_2019
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


def claim_lazy(run: Run, archive: Archive) -> None:
    steps = upcasters()
    right = archive.right(steps)
    run.figure("orders read wrongly", len(archive.sold) - right, "orders", variant=LAZY)
    run.about(LAZY, topics=[UPCASTING, SCHEMA]).claim(
        "through upcasters, a rename, a split, a dropped event and two changes of a field fold to what was sold",
        right == len(archive.sold) and steps.taken > 0,
        fact=f"{right} of {len(archive.sold)} orders, {steps.taken:,} steps",
    )
    readable = archive.readable_in_2021()
    run.about(LAZY, topics=[EVOLUTION, UPCASTING]).claim(
        "the program of 2021 refuses the events of 2024 by their schema version: deploy readers before writers",
        0 < readable < len(archive.sold),
        fact=f"it reads {readable} of {len(archive.sold)} orders, and names the first event of the others that is too"
        " new",
    )


# Rewriting.


def claim_edited(run: Run, archive: Archive) -> None:
    digest, readable = archive.digest(), archive.readable_in_2021()
    edited, right = misreading.edit_in_place(archive.store.connection), archive.right(upcasters())
    after = archive.readable_in_2021()
    run.about(EDITED, wrong_way=True, topics=[EVOLUTION, SCHEMA]).claim(
        "edited in place: the audit finds another hash than it noted, and the old program is locked out",
        edited > 0 and right == len(archive.sold) and archive.digest() != digest and after < readable,
        fact=f"{edited:,} events changed; the program of 2021 read {readable} orders, now {after}",
    )


def claim_eager(run: Run, archive: Archive, conninfo: str) -> Archive:
    """Rewrite in one go; and again beside it, killed in both windows."""
    digest, readable = archive.digest(), archive.readable_in_2021()
    whole, killed = run.schema("_whole"), run.schema("_killed")
    target, began = archive.beside(run, whole), time.perf_counter()
    copied = rewrite(archive.store, target.store.connection, upcasters())
    run.figure("rewriting", copied.read / (time.perf_counter() - began), "events/s", variant=EAGER)
    right = target.right(as_stored)
    run.about(EAGER, topics=[EVOLUTION, SCHEMA]).claim(
        "rewritten into a new store, every order folds as before and needs no step; the old store is as it was",
        verify(archive.store, target.store, upcasters()) == right == len(archive.sold)
        and (archive.digest(), archive.readable_in_2021()) == (digest, readable),
        fact=f"{copied.read:,} events became {copied.written:,}; {right} of {len(archive.sold)} orders the same",
    )
    resumed, places = die_and_go_on(run, archive, conninfo, killed, copied.read)
    same = target.content() == resumed.content() != []
    again = rewrite(archive.store, resumed.store.connection, upcasters())
    run.about(EAGER, topics=[EVOLUTION]).claim(
        "a rewriting that is killed in any window goes on where it was, and comes to the same events and ids",
        same and again == (0, 0) and all(0 < copied_then < copied.read for copied_then in places),
        fact=f"killed with {' and '.join(f'{place:,}' for place in places)} of {copied.read:,} events copied",
    )
    return target


def die_and_go_on(run: Run, archive: Archive, source: str, target: str, total: int) -> tuple[Archive, list[int]]:
    """Kill it in each window, and let it end. Returns also how many events were copied at each kill."""
    resumed, places = archive.beside(run, target), list[int]()
    for window in Window:
        history = run.history_file(f"killed {window}".replace(" ", "-"))
        arguments = source, target, total // 12, history, window, KILLED_AT
        run.worker(f"rewriting-{len(places)}", generations.rewrite_and_die, *arguments).wait()
        faults.require(History.read(history), f"SIGKILL {window}")
        places.append(number(resumed.store.connection, "select count(*) from rewritten"))
    rewrite(archive.store, resumed.store.connection, upcasters())
    return resumed, places


def claim_costs(run: Run, archive: Archive, target: Archive, rounds: int) -> None:
    """Loads of the same old orders from both stores, and of today's orders, in turns."""
    steps = upcasters()
    old, new = archive.begun_and_ended_in_2019, archive.of_2024
    ways = {
        LAZY: (Repository(archive.store, EvolvedOrder, steps), old),
        EAGER: (Repository(target.store, EvolvedOrder), old),
        "written today": (Repository(archive.store, EvolvedOrder, steps), new),
    }
    samples, taken = generations.load_in_turns(ways, steps, rounds)
    for way, found in samples.items():
        run.figure("load of one order", found, "ms", variant=way)
    for way, read in ((LAZY, archive), (EAGER, target)):
        run.figure("bytes of events, indexes included", read.size, "bytes", variant=way)
    each = taken[LAZY] / len(samples[LAZY])
    run.about(LAZY, topics=[UPCASTING, EVOLUTION]).claim(
        "on read, every load of an old event pays for its steps; rewritten, they are paid once, with a second store",
        each > 0 == taken[EAGER] == taken["written today"],
        fact=f"{each:.0f} steps per load of an old order, 0 per load of a rewritten one or one of today",
    )


if __name__ == "__main__":
    experiment.main()
