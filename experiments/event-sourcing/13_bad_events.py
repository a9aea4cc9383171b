"""Events that a projection cannot handle, one for each way to be bad: what becomes of them, and of all the others?

Under `Policy.PARK` they are kept aside with what follows in their stream, under `Policy.STOP` the projector ends before
the first. Then the program is mended, and takes what is parked.
"""

from sourcing.postgres import create
from sourcing.projection import install
from sourcing.shop.read_models import PROJECTIONS
from sourcing.stage import badevents, filling

from shared.experiment import Experiment, Run
from shared.postgres import connect

READ_MODELS, REBUILDING = "I.2/projections/read-models-from-events", "I.2/projections/projection-rebuilding"
experiment = Experiment(
    title="Projections: events that cannot be handled",
    servers=("postgres",),
    topics=(READ_MODELS, REBUILDING),
)
SUMMARY = PROJECTIONS["order_summary"]


@experiment.run
def main(run: Run) -> None:
    create(conninfo := run.schema("_bad"))
    with run.step("bad events among good ones"), connect(conninfo) as connection:
        filling.write(connection, run.seed, 10, "before")
        badevents.write(connection)
        filling.write(connection, run.seed, 10, "after")
        install(connection, SUMMARY)
        seen = badevents.project(conninfo, connection, SUMMARY)
    parked = run.about("one transaction", topics=[READ_MODELS])
    parked.claim(
        "bad events are parked, each with its reason and with what follows in its stream; all other streams go on",
        all(badevents.REASONS[stream] in seen.parked.get(stream, "") for stream in badevents.BAD) and seen.wrong == 0,
        fact=f"{len(seen.parked)} parked with {seen.behind} behind them (msgspec#646); {seen.wrong} other rows wrong",
    )
    parked.claim(
        "under the policy to stop, all events before the first bad one are taken, and the error names it",
        "order-unknown-type" in seen.stopped and seen.missed == 0,
        fact=seen.stopped.partition(":")[0],
    )
    parked.claim(
        "once the program is mended, a retry handles what is parked, in order, and gives what a rebuild gives",
        seen.handled == len(seen.parked) + seen.behind and (seen.left, seen.differ) == (0, 0),
        topics=[REBUILDING],
        fact=f"{seen.handled} handled, {seen.left} left; {seen.differ} rows differ from a rebuild",
    )


if __name__ == "__main__":
    experiment.main()
