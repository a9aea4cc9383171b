"""When does a snapshot pay, how often should one be taken, and what may it be trusted with?

Streams of growing length are loaded with and without a snapshot. The same commands are given under every frequency, on
a small state and on a large one. Then a later program meets the snapshots of an earlier one.
"""

from sourcing.aggregate import InvariantViolated
from sourcing.postgres import PostgresStore, create
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.snapshots import SCHEMA, EveryEvents, Ignored, OnDemand, PostgresSnapshots
from sourcing.stage.snapshot_costs import Case, Loads, fill, large_state, load, movements, small_state
from sourcing.wrong.trusting import LIMIT, AccountToday, TrustingSnapshots, keep_the_snapshot_only

from shared import postgres
from shared.experiment import Experiment, Run, Scale

experiment = Experiment(
    title="Snapshots: when, how often, and how far to trust them",
    servers=("postgres",),
    topics=(
        "I.2/snapshots/why-snapshots",
        "I.2/snapshots/snapshot-frequency",
        "I.2/snapshots/snapshot-storage",
        "I.2/snapshots/snapshot-events-replay",
    ),
)
WHOLE, SHORT = "every event replayed", "snapshot and the rest"
TRUSTED, VERSIONED, INSTEAD = "old snapshot trusted", "snapshot with a state version", "snapshot in place of events"
TAIL = 50  # events after the snapshot, at most


@experiment.run
def main(run: Run) -> None:
    conninfo = run.schema()
    create(conninfo)
    lengths = run.pick((10, 100, 3_000), (10, 100, 1_000, 10_000), (10, 100, 1_000, 10_000, 100_000))
    frequencies = run.pick((1, 10, 100, 1_000), *[(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)] * 2)
    commands = run.pick(smoke=40, demo=250, full=600)
    run.parameters.update({"events before the commands": 1_000, "commands": commands})
    with postgres.connect(conninfo) as connection:
        connection.execute(SCHEMA.read_text())
        store = PostgresStore(connection)
        with run.step(f"load streams of {lengths[0]} to {lengths[-1]:,} events"):
            claim_loads(run, [note_load(run, load(store, length, TAIL)) for length in lengths])
        with run.step("a snapshot at every version"):
            claim_replay(run, store)
        small, large = small_state(1_000, commands), large_state(1_000, commands)
        for case in (small, large):
            with run.step(f"the same commands under every frequency, {case.name} state"):
                case.measure(store, frequencies)
                note_case(run, case)
                if run.scale is Scale.SMOKE:
                    count_frequency(run, store, case)
                else:
                    claim_frequency(run, case)
        claim_bytes(run, store, large)
        with run.step("snapshots of an older program"):
            claim_trusted(run, store)
            claim_versioned(run, store)
        with run.step("a snapshot in place of the events"):
            claim_instead(run, store)
        with run.step("truncate the snapshots"):
            claim_cache(run, store, [f"{small.name}-{every}" for every in frequencies])


# How long a load takes.


def note_load(run: Run, loads: Loads) -> Loads:
    for way, samples in ((WHOLE, loads.whole), (SHORT, loads.short)):
        run.figure("load", samples, "ms", variant=way, x=float(loads.length), x_label="events in the stream")
    return loads


def claim_loads(run: Run, loads: list[Loads]) -> None:
    """The best of each kind is compared: whatever else the machine does makes them slower, and never faster.

    At scale smoke only the events are counted.
    """
    first, last, timed = loads[0], loads[-1], run.scale is not Scale.SMOKE
    whole_is_slow = min(last.whole) > 5 * min(first.whole)
    short_is_fast = min(last.short) < min(last.whole) / 3
    run.claim(
        "without a snapshot, a load reads the whole life of the aggregate"
        + (", and takes longer with every event" if timed else ""),
        all(one.read_whole == one.length for one in loads) and (whole_is_slow or not timed),
        topics=["I.2/snapshots/why-snapshots"],
        fact=f"{first.length} events: {min(first.whole):.2f} ms, {last.length:,}: {min(last.whole):.1f} ms",
        variant=WHOLE,
        wrong_way=True,
    )
    run.claim(
        f"with one, a load reads the {TAIL} events after it, however long the stream is",
        all(one.read_short <= TAIL for one in loads) and (short_is_fast or not timed),
        topics=["I.2/snapshots/why-snapshots", "I.2/snapshots/snapshot-events-replay"],
        fact=f"{last.length:,} events: {min(last.short):.2f} ms, {min(last.whole) / min(last.short):,.0f} times faster",
        variant=SHORT,
    )
    if timed:
        run.claim(
            f"a stream of {first.length} events loads no faster with a snapshot:"
            " it is one more question to the database",
            min(first.short) > min(first.whole),
            topics=["I.2/snapshots/why-snapshots"],
            fact=f"{min(first.short):.2f} ms with, {min(first.whole):.2f} ms without",
            variant=SHORT,
            wrong_way=True,
        )


def claim_replay(run: Run, store: PostgresStore) -> None:
    """Every version of a stream as the place of the snapshot."""
    length = run.pick(smoke=60, demo=300, full=1_000)
    fill(store, "account-replay", movements(length))
    whole = Repository(store, Account)
    expected = whole.load("replay")
    kept = PostgresSnapshots(store.connection, OnDemand())
    equal = 0
    for version in range(1, length + 1):
        kept.take(whole.load_at("replay", version=version))
        found = Repository(store, Account, snapshots=kept).load("replay")
        equal += (found.version, found.state()) == (expected.version, expected.state())
    run.claim(
        "a snapshot at any version and the events after it give the state that all events give",
        equal == kept.used == length,
        topics=["I.2/snapshots/snapshot-events-replay"],
        fact=f"{equal:,} of {length:,} versions",
        variant=SHORT,
    )


# How often.


def note_case(run: Run, case: Case) -> None:
    for every, found in case.found.items():
        if kept := found.kept:
            per = {"snapshots written": kept.taken * 1000, "bytes of snapshots written": kept.bytes * 1000}
            label, variant = "events between two snapshots", f"{case.name} state"
            run.figure("a command: load and save", found.ms, "ms", variant=variant, x=float(every), x_label=label)
            for name, value in per.items():
                unit = "per 1,000 commands"
                run.figure(name, value / case.commands, unit, variant=variant, x=float(every), x_label=label)
    run.figure("a command without snapshots", case.found[0].ms, "ms", variant=f"{case.name} state")
    run.figure("best number of events between two snapshots", case.best, "events", variant=f"{case.name} state")


def count_frequency(run: Run, store: PostgresStore, case: Case) -> None:
    """At scale smoke: too few commands for their times to say anything, but writes and replays can be counted."""
    most, (often, seldom) = max(case.found), (case.taken(1), case.taken(max(case.found)))
    replayed = {every: case.replayed(store, every) for every in case.found}
    run.claim(
        f"{case.name} state: at every event it costs a write each time, seldom a long replay",
        often == case.commands > 10 * seldom and replayed[1] == 0 and replayed[0] > replayed[most] > case.length // 10,
        topics=["I.2/snapshots/snapshot-frequency"],
        fact=f"every event: {often} writes with {case.commands} commands, then {replayed[1]} events replayed; "
        f"every {most:,}: {seldom} and {replayed[most]:,}",
        variant=f"{case.name} state",
    )


def claim_frequency(run: Run, case: Case) -> None:
    ms = {every: found.ms for every, found in case.found.items()}
    seldom, best = max(ms), case.best
    run.claim(
        f"{case.name} state: at every event it costs a write each time, seldom a long replay; the best is between",
        1 < best < seldom and ms[0] > ms[best],
        topics=["I.2/snapshots/snapshot-frequency"],
        fact=f"every {best} events: {ms[best]:.2f} ms a command; every event: {ms[1]:.2f}, every {seldom:,}: "
        f"{ms[seldom]:.2f}, none: {ms[0]:.2f}",
        variant=f"{case.name} state",
    )


def claim_bytes(run: Run, store: PostgresStore, case: Case) -> None:
    query = "select avg(length(data) + length(metadata)) from events where stream = %s"
    row = store.connection.execute(query, [case.make(f"{case.name}-1").stream]).fetchone() or (0,)
    kept, event = case.found[1].kept, float(row[0])
    written = kept.bytes / case.commands if kept else 0.0
    run.claim(
        "a large state at every event: many times more bytes are written for snapshots than for the events",
        written > 20 * event > 0,
        topics=["I.2/snapshots/snapshot-storage", "I.2/snapshots/snapshot-frequency"],
        fact=f"{written:,.0f} bytes of snapshot with every event of {event:.0f} bytes",
        variant=f"{case.name} state",
        wrong_way=True,
    )


# What it may be trusted with.


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
    run.claim(
        "an old snapshot that is trusted gives a state that never was, and a decision that must not be made",
        let and kept.used > 0 and truth > LIMIT,
        topics=["I.2/snapshots/snapshot-events-replay"],
        fact=f"{truth / 100:,.0f} euros withdrawn, {LIMIT / 100:,.0f} allowed",
        variant=TRUSTED,
        wrong_way=True,
    )


def claim_versioned(run: Run, store: PostgresStore) -> None:
    withdraw_nearly_all(store, "versioned")
    kept = PostgresSnapshots(store.connection, EveryEvents(3))
    let = withdraw_again(store, "versioned", kept)
    ignored = kept.ignored[Ignored.STATE_VERSION]
    repository = Repository(store, AccountToday, snapshots=kept)
    repository.execute("versioned", lambda account: account.deposit(100))
    withdrawn, used = repository.load("versioned").withdrawn, kept.used
    run.claim(
        "a snapshot of another state version is ignored and counted, and replaced by the next save",
        not let and ignored == 1 and kept.taken == used == 1 and withdrawn == LIMIT - 1_000,
        topics=["I.2/snapshots/snapshot-events-replay", "I.2/snapshots/snapshot-storage"],
        fact=f"{ignored} ignored and the withdrawal refused; {kept.taken} taken anew",
        variant=VERSIONED,
    )


def claim_instead(run: Run, store: PostgresStore) -> None:
    kept = withdraw_nearly_all(store, "instead")
    truth = Repository(store, AccountToday).load("instead").withdrawn
    removed = keep_the_snapshot_only(store, kept, Repository(store, Account).load("instead"))
    ways = kept, TrustingSnapshots(store.connection, OnDemand())
    found = [Repository(store, AccountToday, snapshots=way).load("instead").withdrawn for way in ways]
    run.claim(
        "a snapshot in place of the events: what today's rules need was never in it, and no replay can bring it back",
        removed > 0 and truth not in found,
        topics=["I.2/snapshots/why-snapshots", "I.2/snapshots/snapshot-storage"],
        fact=f"withdrawn: {truth / 100:,.0f} euros by the events, {max(found) / 100:,.0f} after {removed} were removed",
        variant=INSTEAD,
        wrong_way=True,
    )


def claim_cache(run: Run, store: PostgresStore, accounts: list[str]) -> None:
    kept = PostgresSnapshots(store.connection, OnDemand())
    repository = Repository(store, Account, snapshots=kept)
    before = [repository.load(ident).state() for ident in accounts]
    rows, streams = store.connection.execute("select count(*), count(distinct stream) from snapshots").fetchone() or (
        0,
        0,
    )
    store.connection.execute("truncate snapshots")
    after = [repository.load(ident).state() for ident in accounts]
    run.claim(
        "in a table of their own, the newest of each stream: truncating it loses nothing but time",
        before == after and kept.used == len(accounts) and rows == streams > 0,
        topics=["I.2/snapshots/snapshot-storage"],
        fact=f"{rows} rows for {streams} streams; {len(accounts)} loads the same without them",
        variant=VERSIONED,
    )


if __name__ == "__main__":
    experiment.main()
