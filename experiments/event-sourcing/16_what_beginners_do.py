"""What does a team have to learn before events carry its data?

Four mistakes of beginners, each beside what works: `wrong` and `right` of each entry of MISTAKES (wrong/mistakes.py).
All look right while they are live, so every live state is compared with what a replay gives. Then the code of one
feature is counted, as rows and as events.
"""

from sourcing.postgres import PostgresStore
from sourcing.stage import shopping
from sourcing.wrong.mistakes import MISTAKES

from shared.experiment import Experiment, Run

LEARNING = "I.2/challenges/learning-curve"
experiment = Experiment(
    title="What there is to learn",
    servers=("postgres",),
    topics=(LEARNING,),
)
NOT_REACHED = "live states that replay does not reach"


@experiment.run
def main(run: Run) -> None:
    streams = run.parameters["streams per mistake"] = run.pick(smoke=5, demo=20, full=100)
    with shopping.open_shop(run) as shop, run.step("what beginners do"):
        claim_mistakes(run, shop.store, streams)
    claim_learning(run)


def claim_mistakes(run: Run, events: PostgresStore, streams: int) -> None:
    for number, mistake in enumerate(MISTAKES):
        plays = {f"mistake-{number}-{n}": mistake.play(n) for n in range(streams)}
        states = sum(map(len, plays.values()))
        wrong = sum(shopping.unreached(events, f"{ident}-wrong", *mistake.wrong, play) for ident, play in plays.items())
        right = sum(shopping.unreached(events, f"{ident}-right", *mistake.right, play) for ident, play in plays.items())
        for variant, value in (("mistake", wrong), ("done right", right)):
            wrong_way = variant == "mistake"
            run.figure(NOT_REACHED, value, "states", variant=variant, wrong_way=wrong_way, x=mistake.name)
        run.about(mistake.name, wrong_way=True, topics=[LEARNING]).claim(
            f"{mistake.name}: it looks right while it is live, but replay gives other states",
            wrong >= streams > 0 and right == 0,
            fact=f"{wrong} of {states} states not reached; done right, {right}",
        )


def claim_learning(run: Run) -> None:
    """The same feature twice: what there is to read and to know. What carries the events comes on top."""
    sizes = shopping.sizes()
    for name, found in sizes.items():
        run.figure("statements to read", found.lines, "lines", variant=name)
        run.figure("concepts to know", found.names, "names", variant=name)
    row, events, carrying = sizes.values()
    run.about("events", topics=[LEARNING]).claim(
        "the same feature takes more code and more concepts as events than as rows, before anything is gained",
        row.lines < events.lines and row.names < events.names,
        fact=f"{row.lines} lines and {row.names} names as rows, {events.lines} and {events.names} as events;"
        f" store and repository, which carry all features, are {carrying.lines} and {carrying.names} more",
    )


if __name__ == "__main__":
    experiment.main()
