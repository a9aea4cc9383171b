"""A read model is rebuilt while orders come in and people read: what do they see, and how long does it take?

Once it is emptied and filled again (`start_again`), once built beside and switched in one transaction
(`rebuild`), before the eyes of the same reader. First, how fast: in batches of several sizes.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sourcing.projection import Projector
from sourcing.rebuild import Rebuilt, rebuild
from sourcing.shop.read_models import PROJECTIONS, OrderSummary
from sourcing.stage import traffic
from sourcing.wrong.emptied import start_again

from shared.experiment import Experiment, Run, Scale
from shared.postgres import Connection
from shared.wait import until

REBUILDING, CONSISTENCY = "I.2/projections/projection-rebuilding", "I.2/projections/projection-consistency"
experiment = Experiment(
    title="Projections: rebuilt while people read",
    servers=("postgres",),
    topics=(REBUILDING, CONSISTENCY),
)
SUMMARY = OrderSummary()
ONE, IN_PLACE, BESIDE = "one transaction", "emptied and filled again", "built beside, switched"
FASTER = 10  # times that a batch must be faster than a transaction per event, whatever else the machine does


@experiment.run
def main(run: Run) -> None:
    with traffic.open_log(run) as (log, connection):
        with run.step("rebuild in batches of several sizes"):
            measure_rates(run, log, connection)
        with run.step("rebuild while orders come in and a reader looks on"):
            rebuild_live(run, log, connection)


def measure_rates(run: Run, log: str, connection: Connection) -> None:
    """Every read model rebuilt, and one of them in batches of several sizes."""
    events = traffic.fill(connection, run.seed, run.pick(smoke=800, demo=4_000, full=20_000))
    rates = {size: traffic.rate(connection, SUMMARY, size, events) for size in (1, 10, 100, 1_000)}
    for size, found in rates.items():
        run.figure("events into a read model", found, "events/s", variant=SUMMARY.name, x=size, x_label="batch")
    for projection in PROJECTIONS.values():
        began = time.perf_counter()
        rebuild(log, projection)
        run.figure("rebuild", events / (time.perf_counter() - began), "events/s", variant=projection.name)
    if run.scale is not Scale.SMOKE:
        run.about(ONE, topics=[REBUILDING]).claim(
            f"a batch in one transaction and one upsert is more than {FASTER} times as fast as a transaction per event",
            rates[1_000] > FASTER * rates[1],
            fact=f"{rates[1_000]:,.0f} against {rates[1]:,.0f} events/s: {rates[1_000] / rates[1]:.0f} times",
        )


def rebuild_live(run: Run, log: str, connection: Connection) -> None:
    """The same read model rebuilt in both ways, with a projector, a writer and a reader at work."""
    projector, writer = traffic.begin(run, log, connection)
    with looking(run, log, "in-place") as in_place:
        before = traffic.changes(connection)
        projector.stop()
        start_again(connection, SUMMARY)
        traffic.await_looks(run.folder / "in-place.json")
        Projector(connection, SUMMARY, batch=500).step()
        traffic.await_looks(run.folder / "in-place.json")
        projector.start()
        until("the read model to be whole again", lambda: traffic.changes(connection) >= before)
    with looking(run, log, "beside") as beside:
        before = traffic.written(connection)
        built = rebuild(
            log, SUMMARY, batch=500, progress=lambda _: until("more orders", lambda: more(connection, before))
        )
        meanwhile = more(connection, before)
    writer.stop()
    until("the projector to have it all", lambda: traffic.behind(connection) == 0)
    claim_in_place(run, in_place)
    claim_beside(run, beside, built, meanwhile, traffic.wrong_rows(connection))


def more(connection: Connection, before: int) -> int:
    return traffic.written(connection) - before


@contextmanager
def looking(run: Run, log: str, name: str) -> Iterator[dict[str, float]]:
    """A reader polls the read model during the block; what it saw is there after it."""
    seen: dict[str, float] = {}
    result = run.folder / f"{name}.json"
    reader = run.worker(f"reader-{name}", traffic.watch, log, result)
    until("the reader to look", result.exists)
    yield seen
    reader.stop()
    seen.update(json.loads(result.read_text()))
    variant = IN_PLACE if name == "in-place" else BESIDE
    run.figure("least that a reader saw", 100 * seen["lowest"], "%", variant=variant, wrong_way=variant == IN_PLACE)


def claim_in_place(run: Run, seen: dict[str, float]) -> None:
    run.about(IN_PLACE, wrong_way=True, topics=[REBUILDING]).claim(
        "emptied and filled again: people who read meanwhile see nothing at first, and then a part of it",
        seen["empty"] > 0 and seen["fell"] > seen["empty"],
        fact=f"of {seen['polls']} polls {seen['empty']} saw nothing, {seen['fell']} less than one before",
    )


def claim_beside(run: Run, seen: dict[str, float], built: Rebuilt, meanwhile: int, wrong: int) -> None:
    right = run.about(BESIDE, topics=[REBUILDING])
    right.claim(
        "built beside and switched in one transaction: a reader sees the old table, then the new one, always whole",
        seen["fell"] == 0 and seen["tables"] == 2,
        fact=f"{seen['fell']} of {seen['polls']} polls saw less than one before; {seen['tables']} tables seen",
    )
    right.claim(
        "what is written during the rebuild and the switch is in the new table, once",
        wrong == 0 and meanwhile > 0,
        topics=[REBUILDING, CONSISTENCY],
        fact=f"{built.events:,} events read, {meanwhile} written meanwhile, {wrong} rows wrong",
    )


if __name__ == "__main__":
    experiment.main()
