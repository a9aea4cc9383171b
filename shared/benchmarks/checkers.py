"""How long does it take to read and judge a history of a million operations?"""

import time
from pathlib import Path

from msgspec import structs

from shared.checkers import CHECKERS
from shared.experiment import Experiment, Run
from shared.history import Action, History, Op, Outcome, Recorder

experiment = Experiment(title="Judging long histories")


@experiment.run
def main(run: Run) -> None:
    events = run.pick(5_000, 50_000, 250_000)
    path = run.history_file("long")
    with run.step(f"record {4 * events:,} operations"):
        record(path, events)
    began = time.monotonic()
    with run.step("read"):
        history = History.read(path)
    read = time.monotonic() - began
    run.figure("read", read, "s", operations=len(history))
    judged = 0.0
    for kind, checker in CHECKERS.items():
        began = time.monotonic()
        found = checker(history)
        judged += time.monotonic() - began
        run.figure("judge", time.monotonic() - began, "s", variant=kind, found=len(found))
    run.figure("operations", len(history), "operations")
    run.figure("read and judge", read + judged, "s")
    run.claim(
        "read and judged by all checkers within 10 s",
        read + judged < 10,
        fact=f"{len(history):,} in {read + judged:.1f} s",
    )


def record(path: Path, events: int) -> None:
    """Write, send, deliver, effect; every thousandth event twice, every thousandth lost."""
    with Recorder(path, "test") as recorder:
        for number in range(events):
            at, value, key = number * 4, f"event-{number:08d}", f"order-{number // 4:07d}"
            steps = (Action.WRITE, Action.SEND, Action.DELIVER, Action.EFFECT)
            ops = [Op(at + n, a, a, Outcome.OK, value, key, number % 4 + 1) for n, a in enumerate(steps)]
            ops[2] = structs.replace(
                ops[2], process="consumer", topic="orders", partition=number % 3, offset=number // 3
            )
            recorder.add(*(ops[:2] if number % 1000 == 1 else ops))


if __name__ == "__main__":
    experiment.main()
