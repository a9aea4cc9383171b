"""Sagas are not isolated: which changes of others do they overwrite, and which countermeasures help?

After every local transaction, a seeded random choice decides which saga goes on. The popular way and each
countermeasure get the same orders. Shown for each: what it lets happen, and what it costs in waits, repeated reads and
refusals. What differs is a method of a few lines (saga/lessons/isolation.py: Overwriting, Commuting, Rereading,
Holding).
"""

from saga.lessons.isolation import CONCURRENT, Approach, Commuting, End, Holding, Overwriting, Rereading, Result
from saga.stage import interleavings

from shared.experiment import Experiment, Run

STEPWISE = "I.4/saga-fundamentals/sequence-of-local-transactions"
NO_LOCKS = "I.4/saga-fundamentals/no-distributed-locks"
experiment = Experiment(
    title="Isolation: what sagas see of each other",
    servers=("postgres",),
    topics=(STEPWISE, NO_LOCKS),
)
OVERWRITING = Approach("read, then write", Overwriting())
COMMUTING = Approach("commutative update", Commuting())
REREADING = Approach("reread value", Rereading())
WAITING = Approach("semantic lock, others wait", Holding())
REFUSING = Approach("semantic lock, others are refused", Holding(), waits=False)
Found = dict[tuple[Approach, int], Result]  # by approach and number of accounts


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=20, demo=60, full=150)
    sizes = run.pick((1, 8), (1, 2, 5, 20), (1, 2, 5, 20, 50))
    run.parameters.update({"sagas per case": count, "at once": CONCURRENT})
    with run.step("sagas that charge the same accounts: lost updates"):
        ways = (OVERWRITING, COMMUTING, REREADING, WAITING, REFUSING)
        found, locks = interleavings.charge(run, ways, sizes, count)
    note(run, found, count)
    claim_lost_updates(run, found)
    run.claim(
        "a semantic lock is a row: no lock of the database is held between the steps of a saga",
        locks.found == 0 < locks.turns,
        topics=[NO_LOCKS],
        fact=f"{locks.found} locks held after {locks.turns:,} turns",
    )


def note(run: Run, found: Found, count: int) -> None:
    for (way, size), result in found.items():
        about = run.about(way.name, wrong_way=way is OVERWRITING)
        refused = result.tally.ends[End.REFUSED]
        about.figure("money that is not where the charges say", result.lost / 100, "euro", x=size, x_label="accounts")
        about.figure("extra turns of a saga", result.extra / count, "turns", x=size, x_label="accounts")
        about.figure("sagas refused", refused, "sagas", x=size, x_label="accounts")


def claim_lost_updates(run: Run, found: Found) -> None:
    """On one account, what each costs; on any number of them, that nothing is lost."""
    overwriting = found[OVERWRITING, 1]
    run.about(OVERWRITING.name, wrong_way=True, topics=[STEPWISE]).claim(
        "a value read in one step and written in a later step overwrites what others charged in between",
        overwriting.lost > 0,
        fact=f"{overwriting.lost / 100:,.2f} euro are not where the charges say",
    )
    text = "a change that commutes needs neither wait nor lock"
    claim(run, COMMUTING, text, found, found[COMMUTING, 1].extra == 0)
    text = "a value that is read again before it is written costs repeats"
    claim(run, REREADING, text, found, found[REREADING, 1].extra > 0)
    claim(run, WAITING, "a semantic lock costs the others waits", found, found[WAITING, 1].extra > 0)
    refused = found[REFUSING, 1].tally.ends[End.REFUSED]
    claim(run, REFUSING, "a semantic lock that refuses costs orders", found, refused > 0)


def claim(run: Run, way: Approach, text: str, found: Found, cost: bool) -> None:
    lost, hot = sum(result.lost for (tried, _), result in found.items() if tried is way), found[way, 1]
    run.about(way.name, topics=[STEPWISE]).claim(
        f"{text}, and nothing is lost",
        lost == 0 and cost,
        fact=f"on one account: {hot.extra} extra turns and {hot.tally.ends[End.REFUSED]} refusals of"
        f" {hot.tally.ends.total()} sagas; {lost} cents lost on any number of accounts",
    )


if __name__ == "__main__":
    experiment.main()
