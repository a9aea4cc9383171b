"""A value that JSON cannot express, an old event without a field: who reports it, when, and does it name the event?

The same values go through a plain encoder (`bare.encode`) and through `Aggregate.record`. The same events go through
upcasting steps and `apply` without checks (`bare.fold`), and through `Repository.load`.
"""

from functools import partial

from sourcing.repository import Repository
from sourcing.shop.evolved import EvolvedOrder
from sourcing.stage import unfit
from sourcing.stage.unfit import Said
from sourcing.wrong import bare

from shared.experiment import Experiment, Run

APPLICATION, COMMANDS = "I.2/aggregate-design/event-application", "I.2/aggregate-design/command-handling"
UPCASTING, EVOLUTION = "I.2/event-versioning/upcasting-events", "I.2/challenges/event-schema-evolution"
experiment = Experiment(
    title="What does not fit",
    servers=("postgres",),
    topics=(
        "I.2/aggregate-design/event-application",
        "I.2/aggregate-design/command-handling",
        "I.2/event-versioning/upcasting-events",
        "I.2/challenges/event-schema-evolution",
    ),
)
RECORD, NAMED = "record", "repository and upcasters"


@experiment.run
def main(run: Run) -> None:
    run.parameters.update({"values": len(unfit.VALUES), "events": len(unfit.UNFIT)})
    with run.step("values are written, and read back"):
        claim_recorded(run)
    with run.step("events that the program cannot use are loaded"):
        claim_unfit(run)


def claim_recorded(run: Run) -> None:
    """Values that a program has and JSON has not."""
    values = unfit.VALUES.values()
    by_encoder = partial(unfit.changed, bare.encode)
    changed, refused = sum(map(by_encoder, values)), sum(map(unfit.refused, values))
    run.claim(
        "a plain encoder writes money as text, a tuple as a list and NaN as null: what is loaded is something else",
        changed > 0 and by_encoder(unfit.VALUES["Decimal"]) and by_encoder(unfit.VALUES["NaN"]),
        topics=[APPLICATION],
        fact=f"{changed} of {len(values)} values changed or unreadable (compare pyeventsourcing#283, nab#1007)",
        variant="plain encoder",
        wrong_way=True,
        source="pyeventsourcing/eventsourcing#283",
    )
    run.claim(
        "a value that would not load as it was recorded is refused before it is stored, with the field's name",
        refused == len(values) and unfit.keeps_its_own(),
        topics=[APPLICATION, COMMANDS],
        fact=f"{refused} of {len(values)} values refused",
        variant=RECORD,
    )


def claim_unfit(run: Run) -> None:
    """Steps that forget to return, and fields that are not there."""
    with unfit.open_store(run) as store:
        said = []
        for number, (step, event) in enumerate(unfit.UNFIT):
            unnamed = unfit.said_by(partial(bare.fold, EvolvedOrder("1"), step, event))
            stream, named = unfit.load(Repository(store, EvolvedOrder, unfit.upcasters(step)), number, event)
            said.append(Said(stream, named, unnamed))
    at_start = unfit.refused_at_start(unfit.forgets)
    run.claim(
        "an event that a step or apply cannot use: Python says what is missing, and not in which event",
        all(one.unnamed and one.stream not in one.unnamed for one in said),
        topics=[UPCASTING],
        fact="; ".join(one.unnamed for one in said),
        variant="left to Python",
        wrong_way=True,
        source="hallgren/eventsourcing#160",
    )
    run.claim(
        "the error names stream, version, type and step; a step that returns nothing is found at the start",
        all(one.names_all for one in said) and bool(at_start) and not unfit.refused_at_start(unfit.in_cents),
        topics=[UPCASTING, EVOLUTION],
        fact=f"{said[0].named}; at the start: {at_start} (compare hallgren/eventsourcing#160)",
        variant=NAMED,
    )


if __name__ == "__main__":
    experiment.main()
