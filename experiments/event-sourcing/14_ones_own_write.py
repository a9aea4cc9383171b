"""Somebody places an order and reads the read model right after: is the order there?

A projector follows the events while others write, too. The two ways to read differ in one line: the right one first
waits until `checkpoint.includes` says that the projection has passed the reader's own event.
"""

import time

from sourcing import checkpoint
from sourcing.shop.read_models import OrderSummary
from sourcing.stage import traffic

from shared.errors import DeadlineExceeded
from shared.experiment import Experiment, Run
from shared.postgres import Connection

experiment = Experiment(
    title="Projections: reading one's own write",
    servers=("postgres",),
    topics=("I.2/projections/projection-consistency",),
)
PATIENCE = 30.0  # seconds for a write to come into the read model


@experiment.run
def main(run: Run) -> None:
    with (
        traffic.open_log(run) as (log, connection),
        run.step("place an order and look for it, while others place theirs"),
    ):
        traffic.fill(connection, run.seed, run.pick(smoke=80, demo=400, full=2_000))
        traffic.begin(run, log, connection)
        own = [write_and_look(connection, number) for number in range(run.pick(10, 40, 200))]
    missed, still = sum(not at_once for at_once, _, _ in own), sum(not after for _, after, _ in own)
    waiting = run.about("one transaction", topics=experiment.topics)
    waiting.figure("wait for one's own write", [waited for _, _, waited in own], "ms")
    waiting.claim(
        "a read right after the write misses it; a read after the checkpoint has passed it finds it",
        missed > 0 and still == 0,
        fact=f"{missed} of {len(own)} writes not seen at once, {still} after the wait",
    )


def write_and_look(connection: Connection, number: int) -> tuple[bool, bool, float]:
    """Place an order: is it in the read model at once, is it there when the checkpoint says so, after how many ms?"""
    stream = traffic.place_order(connection, number)
    began = time.perf_counter()
    at_once = traffic.shows(connection, stream)
    while not checkpoint.includes(connection, OrderSummary.name, stream, 1):  # without a pause, since it is measured
        if time.perf_counter() - began > PATIENCE:
            raise DeadlineExceeded(f"{OrderSummary.name} did not take in {stream} within {PATIENCE:g} s")
    waited = (time.perf_counter() - began) * 1000
    return at_once, traffic.shows(connection, stream), waited


if __name__ == "__main__":
    experiment.main()
