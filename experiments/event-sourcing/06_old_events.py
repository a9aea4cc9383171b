"""Events of 2019 and 2021 are read by the program of 2024: which ways give what was sold, and at what price?

A shop's orders were written by three programs. They are read through upcasters, rewritten into a new store, edited
where they lie, and read in a hurry. Then producers surprise, and careless changes meet the contract.
"""

import time
from pathlib import Path

from sourcing.evolution import contracts
from sourcing.evolution.rewriting import Window, prepare, rewrite, verify
from sourcing.postgres import PostgresStore, create
from sourcing.repository import Repository, as_stored
from sourcing.shop.evolved import EvolvedOrder, sample, upcasters
from sourcing.stage.generations import rewrite_and_die
from sourcing.stage.old_shop import Shop, content, load_in_turns
from sourcing.wrong import misreading, surprises
from sourcing.wrong.surprises import SURPRISES, TOTAL, CarelessOrder, Met

from shared import faults, postgres
from shared.experiment import Experiment, Run
from shared.history import History

experiment = Experiment(
    title="Old events",
    servers=("postgres",),
    topics=(
        "I.2/event-versioning/schema-evolution",
        "I.2/event-versioning/upcasting-events",
        "I.2/event-versioning/weak-vs-strong-schema",
        "I.2/event-versioning/event-contracts",
        "I.2/challenges/event-schema-evolution",
    ),
)
LAZY, EAGER, EDITED, WEAK, STRICT = "upcast on read", "rewritten", "edited in place", "weak schema", "strong schema"
GOLDEN = Path(__file__).with_name("tests") / "golden"
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
    with run.step("producers surprise"):
        claim_surprises(run, shop)
        claim_foreign(run, shop)
    with run.step("careless changes meet the contract"):
        claim_contract(run, shop)


def connect(run: Run, conninfo: str) -> PostgresStore:
    return PostgresStore(run.stack_of_things.enter_context(postgres.connect(conninfo)))


def open_shop(run: Run, conninfo: str, count: int, lines: int) -> Shop:
    create(conninfo)
    return Shop.open(connect(run, conninfo), run.seed, count, lines)


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
    run.claim(
        "through upcasters, a rename, a split, a dropped event and two changes of a field fold to what was sold",
        right == len(shop.sold) and steps.taken > 0,
        topics=[UPCASTING, SCHEMA],
        fact=f"{right} of {len(shop.sold)} orders, {steps.taken:,} steps",
        variant=LAZY,
    )
    readable = shop.readable_in_2021()
    run.claim(
        "the program of 2021 refuses the events of 2024 by their schema version: deploy readers before writers",
        0 < readable < len(shop.sold),
        topics=[EVOLUTION, UPCASTING],
        fact=f"it reads {readable} of {len(shop.sold)} orders, and names the first event of the others that is too new",
        variant=LAZY,
    )


# Rewriting.


def claim_edited(run: Run, shop: Shop) -> None:
    digest, readable = shop.digest(), shop.readable_in_2021()
    edited, right = misreading.edit_in_place(shop.store.connection), shop.right(upcasters())
    after = shop.readable_in_2021()
    run.claim(
        "edited in place: the audit finds another hash than it noted, and the old program is locked out",
        edited > 0 and right == len(shop.sold) and shop.digest() != digest and after < readable,
        topics=[EVOLUTION, SCHEMA],
        fact=f"{edited:,} events changed; the program of 2021 read {readable} orders, now {after}",
        variant=EDITED,
        wrong_way=True,
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
    run.claim(
        "rewritten into a new store, every order folds as before and needs no step; the old store is as it was",
        verify(shop.store, target, upcasters()) == right == len(shop.sold)
        and (shop.digest(), shop.readable_in_2021()) == (digest, readable),
        topics=[EVOLUTION, SCHEMA],
        fact=f"{copied.read:,} events became {copied.written:,}; {right} of {len(shop.sold)} orders the same",
        variant=EAGER,
    )
    places = die_and_go_on(run, shop, conninfo, killed, copied.read)
    same = content(target) == content(resumed := connect(run, killed)) and bool(content(target))
    again = rewrite(shop.store, resumed.connection, upcasters())
    run.claim(
        "a rewriting that is killed in any window goes on where it was, and comes to the same events and ids",
        same and again == (0, 0) and all(0 < copied_then < copied.read for copied_then in places),
        topics=[EVOLUTION],
        fact=f"killed with {' and '.join(f'{place:,}' for place in places)} of {copied.read:,} events copied",
        variant=EAGER,
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
    run.claim(
        "on read, every load of an old event pays for its steps; rewritten, they are paid once, with a second store",
        each > 0 == taken[EAGER] == taken["written today"],
        topics=[UPCASTING, EVOLUTION],
        fact=f"{each:.0f} steps per load of an old order, 0 per load of a rewritten one or one of today",
        variant=LAZY,
    )


# Schemas and contracts.


def claim_surprises(run: Run, shop: Shop) -> None:
    weak = {
        name: surprises.meet_weak(shop.store, f"weak-{n}", data) for n, (name, data) in enumerate(SURPRISES.items())
    }
    strong = {
        name: surprises.meet_strong(shop.store, f"strong-{n}", data) for n, (name, data) in enumerate(SURPRISES.items())
    }
    stored = [n for n in range(len(SURPRISES)) if [*shop.store.read(f"order-strong-{n}")]]
    topics = ["I.2/event-versioning/weak-vs-strong-schema"]
    run.claim(
        "weak: a field that is missing becomes its default, and the total is wrong without an error",
        weak["field missing"] is Met.WRONG,
        topics=topics,
        fact=f"a line of {TOTAL / 100:.2f} euros counts 0.00",
        variant=WEAK,
        wrong_way=True,
    )
    run.claim(
        "weak: a value of the wrong type is stored, and nobody can add up the order again",
        weak["wrong type"] is Met.CRASH,
        topics=topics,
        fact=weak["wrong type"],
        variant=WEAK,
        wrong_way=True,
    )
    stopped = [said for name, (met, said) in strong.items() if met is Met.STOPPED and name != "field added"]
    run.claim(
        "strong: both are stopped at the door, before they are history, with a sentence that names the field",
        len(stopped) == 2 and not stored and "cents" in stopped[0] and "quantity" in stopped[1],
        topics=topics,
        fact=stopped[1] if len(stopped) == 2 else "",
        variant=STRICT,
    )
    run.claim(
        "a field that a producer adds is no matter to a weak schema; a strong one must be told first",
        weak["field added"] is Met.RIGHT and strong["field added"][0] is Met.STOPPED,
        topics=topics,
        fact=f"weak: {weak['field added']}; strong: {strong['field added'][0]}",
        variant=WEAK,
    )


def claim_foreign(run: Run, shop: Shop) -> None:
    """The program of 2021 with a weak schema takes `currency` for a field that it need not know."""
    chosen = shop.sold[2::6]  # of 2024
    seen = surprises.revenue_in_2021(shop.store, [sale.stream for sale in chosen])
    euros = sum(sale.total for sale in chosen if sale.currency == "EUR")
    run.claim(
        "weak: an old reader passes over the new field `currency`, and adds up kronor and euros",
        seen > euros > 0,
        topics=["I.2/event-versioning/weak-vs-strong-schema", SCHEMA],
        fact=f"{seen / 100:,.2f} instead of {euros / 100:,.2f} euros",
        variant=WEAK,
        wrong_way=True,
    )


def claim_contract(run: Run, shop: Shop) -> None:
    goldens, steps = contracts.load(GOLDEN), upcasters()
    holds = not contracts.broken(goldens, steps, steps, sample())
    found = {
        name: contracts.broken(goldens, changed, read, sample(make))
        for name, (changed, read, make) in surprises.careless().items()
    }
    green, unreadable = (
        surprises.round_trip(shop.store, CarelessOrder),
        shop.unreadable(CarelessOrder),
    )
    run.claim(
        "a test that reads back what it wrote stays green when a field is renamed, and no stored order can be read",
        green and unreadable == len(shop.sold),
        topics=["I.2/event-versioning/event-contracts"],
        fact=f"round trip green, {unreadable} of {len(shop.sold)} orders unreadable",
        variant="round trip test",
        wrong_way=True,
    )
    run.claim(
        "golden events of every version catch each careless change, and pass the program as it is",
        holds and all(found.values()) and len(goldens) == len(steps.shapes),
        topics=["I.2/event-versioning/event-contracts"],
        fact=f"{sum(map(bool, found.values()))} of {len(found)} caught: {', '.join(found)}",
        variant="golden events",
    )


if __name__ == "__main__":
    experiment.main()
