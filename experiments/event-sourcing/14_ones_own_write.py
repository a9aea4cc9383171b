"""Somebody places an order and reads the read model right after: is the order there?

A projector follows the events while others write, too. The two ways to read differ in one line: before reading, wait
until `checkpoint.includes` says that the projection has passed one's own event.
"""

from sourcing.postgres import create
from sourcing.projection import install
from sourcing.shop.read_models import PROJECTIONS
from sourcing.stage import filling, projecting
from sourcing.stage.watching import changes, write_and_look

from shared.experiment import Experiment, Run
from shared.postgres import connect
from shared.wait import until

experiment = Experiment(
    title="Projections: reading one's own write",
    servers=("postgres",),
    topics=("I.2/projections/projection-consistency",),
)
SUMMARY = PROJECTIONS["order_summary"]
RATE = 40.0  # orders per second that others place, an event per transaction


@experiment.run
def main(run: Run) -> None:
    create(log := run.schema("_log"))
    with connect(log) as connection, run.step("place an order and look for it, while others place theirs"):
        filling.write(connection, run.seed, run.pick(smoke=80, demo=400, full=2_000), "old")
        install(connection, SUMMARY)
        run.worker("projector", projecting.follow, log, SUMMARY.name)
        run.worker("writer", projecting.write_paced, log, run.seed, RATE, "new")
        old = changes(connection)
        until("orders to come in, and into the read model", lambda: changes(connection) > old)
        own = [write_and_look(connection, number) for number in range(run.pick(10, 40, 200))]
    missed, still = sum(not at_once for at_once, _, _ in own), sum(not after for _, after, _ in own)
    waiting = run.about("one transaction", topics=experiment.topics)
    waiting.figure("wait for one's own write", [waited for _, _, waited in own], "ms")
    waiting.claim(
        "who reads right after his write does not find it; who waits for the checkpoint to pass it does",
        missed > 0 and still == 0,
        fact=f"{missed} of {len(own)} writes not seen at once, {still} after the wait",
    )


if __name__ == "__main__":
    experiment.main()
