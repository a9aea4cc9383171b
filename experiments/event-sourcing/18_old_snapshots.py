"""A later program meets the snapshots of an earlier one: what may a snapshot be trusted with?

`PostgresSnapshots` compares the version of the state, `TrustingSnapshots` does not. Then somebody keeps the snapshot in
place of the events.
"""

from sourcing.aggregate import InvariantViolated
from sourcing.postgres import PostgresStore, create
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.snapshots import SCHEMA, EveryEvents, Ignored, OnDemand, PostgresSnapshots
from sourcing.wrong.trusting import LIMIT, AccountToday, TrustingSnapshots, keep_the_snapshot_only

from shared import postgres
from shared.experiment import Experiment, Run

WHY = "I.2/snapshots/why-snapshots"
STORAGE, REPLAY = "I.2/snapshots/snapshot-storage", "I.2/snapshots/snapshot-events-replay"
experiment = Experiment(
    title="Snapshots of an older program",
    servers=("postgres",),
    topics=(WHY, STORAGE, REPLAY),
)
TRUSTED, VERSIONED, INSTEAD = "old snapshot trusted", "snapshot with a state version", "snapshot in place of events"


@experiment.run
def main(run: Run) -> None:
    conninfo = run.schema()
    create(conninfo)
    with postgres.connect(conninfo) as connection:
        connection.execute(SCHEMA.read_text())
        store = PostgresStore(connection)
        with run.step("snapshots of an older program"):
            claim_trusted(run, store)
            claim_versioned(run, store)
        with run.step("a snapshot in place of the events"):
            claim_instead(run, store)


def withdraw_nearly_all(store: PostgresStore, ident: str) -> PostgresSnapshots:
    """An account of the old program, from which nearly the LIMIT was withdrawn, and its snapshot."""
    kept = PostgresSnapshots(store.connection, EveryEvents(3))
    old = Repository(store, Account, snapshots=kept)
    old.execute(ident, lambda account: account.open("Ada"))
    old.execute(ident, lambda account: account.deposit(4 * LIMIT))
    old.execute(ident, lambda account: account.withdraw(LIMIT - 1_000))
    return kept


def withdraw_again(store: PostgresStore, ident: str, kept: PostgresSnapshots) -> bool:
    """Whether today's program lets half the LIMIT be withdrawn on top."""
    try:
        Repository(store, AccountToday, snapshots=kept).execute(ident, lambda account: account.withdraw(LIMIT // 2))
    except InvariantViolated:
        return False
    return True


def claim_trusted(run: Run, store: PostgresStore) -> None:
    withdraw_nearly_all(store, "trusted")
    kept = TrustingSnapshots(store.connection, OnDemand())
    let = withdraw_again(store, "trusted", kept)
    truth = Repository(store, AccountToday).load("trusted").withdrawn
    run.about(TRUSTED, wrong_way=True, topics=[REPLAY]).claim(
        "an old snapshot that is trusted gives a state that never was, and a decision that must not be made",
        let and kept.used > 0 and truth > LIMIT,
        fact=f"{truth / 100:,.0f} euros withdrawn, {LIMIT / 100:,.0f} allowed",
    )


def claim_versioned(run: Run, store: PostgresStore) -> None:
    withdraw_nearly_all(store, "versioned")
    kept = PostgresSnapshots(store.connection, EveryEvents(3))
    let = withdraw_again(store, "versioned", kept)
    ignored = kept.ignored[Ignored.STATE_VERSION]
    repository = Repository(store, AccountToday, snapshots=kept)
    repository.execute("versioned", lambda account: account.deposit(100))
    withdrawn, used = repository.load("versioned").withdrawn, kept.used
    run.about(VERSIONED, topics=[REPLAY, STORAGE]).claim(
        "a snapshot of another state version is ignored and counted, and replaced by the next save",
        not let and ignored == 1 and kept.taken == used == 1 and withdrawn == LIMIT - 1_000,
        fact=f"{ignored} ignored and the withdrawal refused; {kept.taken} taken anew",
    )


def claim_instead(run: Run, store: PostgresStore) -> None:
    kept = withdraw_nearly_all(store, "instead")
    truth = Repository(store, AccountToday).load("instead").withdrawn
    removed = keep_the_snapshot_only(store, kept, Repository(store, Account).load("instead"))
    ways = kept, TrustingSnapshots(store.connection, OnDemand())
    found = [Repository(store, AccountToday, snapshots=way).load("instead").withdrawn for way in ways]
    run.about(INSTEAD, wrong_way=True, topics=[WHY, STORAGE]).claim(
        "a snapshot in place of the events: what today's rules need was never in it, and no replay can bring it back",
        removed > 0 and truth not in found,
        fact=f"withdrawn: {truth / 100:,.0f} euros by the events, {max(found) / 100:,.0f} after {removed} were removed",
    )


if __name__ == "__main__":
    experiment.main()
