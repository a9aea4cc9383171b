"""Producers write what nobody agreed on, and careless changes break what is stored: what stops them, and when?

A weak schema takes what comes, a strong one is asked before the append: `surprises.meet_weak` and `meet_strong`. Then
careless changes meet a test that reads back what it wrote, and the golden events of every version.
"""

from pathlib import Path

from sourcing.evolution import contracts
from sourcing.shop.evolved import sample, upcasters
from sourcing.stage.generations import Archive, open_archive
from sourcing.wrong import surprises
from sourcing.wrong.surprises import SURPRISES, TOTAL, CarelessOrder, Met

from shared.experiment import Experiment, Run

SCHEMA, WEAK_STRONG = "I.2/event-versioning/schema-evolution", "I.2/event-versioning/weak-vs-strong-schema"
CONTRACTS = "I.2/event-versioning/event-contracts"
experiment = Experiment(
    title="Producers surprise",
    servers=("postgres",),
    topics=(SCHEMA, WEAK_STRONG, CONTRACTS),
)
WEAK, STRICT = "weak schema", "strong schema"
GOLDEN = Path(__file__).with_name("tests") / "golden"


@experiment.run
def main(run: Run) -> None:
    count, lines = run.pick((60, 10), (120, 50), (600, 100))
    run.parameters.update({"orders": count, "lines per order": lines})
    with run.step(f"{count} orders by the programs of 2019, 2021 and 2024"):
        archive = open_archive(run, run.schema("_shop"), count, lines)
    with run.step("producers surprise"):
        claim_surprises(run, archive)
        claim_foreign(run, archive)
    with run.step("careless changes meet the contract"):
        claim_contract(run, archive)


def claim_surprises(run: Run, archive: Archive) -> None:
    weak, strong = {}, {}
    for n, (name, data) in enumerate(SURPRISES.items()):
        weak[name] = surprises.meet_weak(archive.store, f"weak-{n}", data)
        strong[name] = surprises.meet_strong(archive.store, f"strong-{n}", data)
    stored = [n for n in range(len(SURPRISES)) if [*archive.store.read(f"order-strong-{n}")]]
    topics = [WEAK_STRONG]
    run.about(WEAK, wrong_way=True, topics=topics).claim(
        "weak: a field that is missing becomes its default, and the total is wrong without an error",
        weak["field missing"] is Met.WRONG,
        fact=f"a line of {TOTAL / 100:.2f} euros counts 0.00",
    )
    run.about(WEAK, wrong_way=True, topics=topics).claim(
        "weak: a value of the wrong type is stored, and nobody can add up the order again",
        weak["wrong type"] is Met.CRASH,
        fact=weak["wrong type"],
    )
    stopped = [said for name, (met, said) in strong.items() if met is Met.STOPPED and name != "field added"]
    run.about(STRICT, topics=topics).claim(
        "strong: both are stopped at the door, before they are history, with a sentence that names the field",
        len(stopped) == 2 and not stored and "cents" in stopped[0] and "quantity" in stopped[1],
        fact=stopped[1] if len(stopped) == 2 else "",
    )
    run.about(WEAK, topics=topics).claim(
        "a field that a producer adds is no matter to a weak schema; a strong one must be told first",
        weak["field added"] is Met.RIGHT and strong["field added"][0] is Met.STOPPED,
        fact=f"weak: {weak['field added']}; strong: {strong['field added'][0]}",
    )


def claim_foreign(run: Run, archive: Archive) -> None:
    """The program of 2021 with a weak schema takes `currency` for a field that it need not know."""
    chosen = archive.of_2024
    seen = surprises.revenue_in_2021(archive.store, [sale.stream for sale in chosen])
    euros = sum(sale.total for sale in chosen if sale.currency == "EUR")
    run.about(WEAK, wrong_way=True, topics=[WEAK_STRONG, SCHEMA]).claim(
        "weak: an old reader passes over the new field `currency`, and adds up kronor and euros",
        seen > euros > 0,
        fact=f"{seen / 100:,.2f} instead of {euros / 100:,.2f} euros",
    )


def claim_contract(run: Run, archive: Archive) -> None:
    goldens, steps = contracts.load(GOLDEN), upcasters()
    holds = not contracts.broken(goldens, steps, steps, sample())
    found = {
        name: contracts.broken(goldens, changed, read, sample(make))
        for name, (changed, read, make) in surprises.careless().items()
    }
    green, unreadable = (
        surprises.round_trip(archive.store, CarelessOrder),
        archive.unreadable(CarelessOrder),
    )
    run.about("round trip test", wrong_way=True, topics=[CONTRACTS]).claim(
        "a test that reads back what it wrote stays green when a field is renamed, and no stored order can be read",
        green and unreadable == len(archive.sold),
        fact=f"round trip green, {unreadable} of {len(archive.sold)} orders unreadable",
    )
    run.about("golden events", topics=[CONTRACTS]).claim(
        "golden events of every version catch each careless change, and pass the program as it is",
        holds and all(found.values()) and len(goldens) == len(steps.shapes),
        fact=f"{sum(map(bool, found.values()))} of {len(found)} caught: {', '.join(found)}",
    )


if __name__ == "__main__":
    experiment.main()
