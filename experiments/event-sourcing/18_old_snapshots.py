"""A later program meets the snapshots of an earlier one: what may a snapshot be trusted with?

`PostgresSnapshots.restore` compares the version of the state, `TrustingSnapshots.restore` does not. Then somebody keeps
the snapshot in place of the events.
"""

from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.snapshots import EveryEvents, Ignored, OnDemand, PostgresSnapshots
from sourcing.stage.branch import Branch, open_branch
from sourcing.wrong.trusting import LIMIT, TrustingSnapshots, keep_the_snapshot_only

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
    with open_branch(run) as branch:
        with run.step("snapshots of an older program"):
            claim_trusted(run, branch)
            claim_versioned(run, branch)
        with run.step("a snapshot in place of the events"):
            claim_instead(run, branch)


def claim_trusted(run: Run, branch: Branch) -> None:
    branch.withdraw_nearly_all("trusted")
    kept = TrustingSnapshots(branch.store.connection, OnDemand())
    let = branch.withdraw_again("trusted", kept)
    truth = branch.today().load("trusted").withdrawn
    run.about(TRUSTED, wrong_way=True, topics=[REPLAY]).claim(
        "an old snapshot that is trusted gives a state that never was, and a decision that must not be made",
        let and kept.used > 0 and truth > LIMIT,
        fact=f"{truth / 100:,.0f} euros withdrawn, {LIMIT / 100:,.0f} allowed",
    )


def claim_versioned(run: Run, branch: Branch) -> None:
    branch.withdraw_nearly_all("versioned")
    kept = PostgresSnapshots(branch.store.connection, EveryEvents(3))
    let = branch.withdraw_again("versioned", kept)
    ignored = kept.ignored[Ignored.STATE_VERSION]
    repository = branch.today(kept)
    repository.execute("versioned", lambda account: account.deposit(100))
    withdrawn, used = repository.load("versioned").withdrawn, kept.used
    run.about(VERSIONED, topics=[REPLAY, STORAGE]).claim(
        "a snapshot of another state version is ignored and counted, and replaced by the next save",
        not let and ignored == 1 and kept.taken == used == 1 and withdrawn == LIMIT - 1_000,
        fact=f"{ignored} ignored and the withdrawal refused; {kept.taken} taken anew",
    )


def claim_instead(run: Run, branch: Branch) -> None:
    kept = branch.withdraw_nearly_all("instead")
    truth = branch.today().load("instead").withdrawn
    removed = keep_the_snapshot_only(branch.store, kept, Repository(branch.store, Account).load("instead"))
    ways = kept, TrustingSnapshots(branch.store.connection, OnDemand())
    found = [branch.today(way).load("instead").withdrawn for way in ways]
    run.about(INSTEAD, wrong_way=True, topics=[WHY, STORAGE]).claim(
        "a snapshot in place of the events: what today's rules need was never in it, and no replay can bring it back",
        removed > 0 and truth not in found,
        fact=f"withdrawn: {truth / 100:,.0f} euros by the events, {max(found) / 100:,.0f} after {removed} were removed",
    )


if __name__ == "__main__":
    experiment.main()
