"""When does a snapshot pay, and how often should one be taken?

Streams of growing length are loaded with and without a snapshot: with and without the argument `snapshots` of
`Repository`. The same commands are given under every frequency (`EveryEvents`), on a small state and on a large one.
"""

from sourcing.postgres import PostgresStore, create
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.snapshots import SCHEMA, OnDemand, PostgresSnapshots
from sourcing.stage.snapshot_costs import Loads, Workload, fill, large_state, load, movements, small_state

from shared import postgres
from shared.experiment import Experiment, Run, Scale

WHY, FREQUENCY = "I.2/snapshots/why-snapshots", "I.2/snapshots/snapshot-frequency"
STORAGE, REPLAY = "I.2/snapshots/snapshot-storage", "I.2/snapshots/snapshot-events-replay"
experiment = Experiment(
    title="Snapshots: when, how often, and how far to trust them",
    servers=("postgres",),
    topics=(
        WHY,
        FREQUENCY,
        STORAGE,
        REPLAY,
    ),
)
WHOLE, SHORT = "every event replayed", "snapshot and the rest"
VERSIONED = "snapshot with a state version"
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
        for work in (small, large):
            with run.step(f"the same commands under every frequency, {work.name} state"):
                work.measure(store, frequencies)
                note_costs(run, work)
                if run.scale is Scale.SMOKE:
                    count_frequency(run, store, work)
                else:
                    claim_frequency(run, work)
        claim_bytes(run, store, large)
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
    run.about(WHOLE, wrong_way=True, topics=[WHY]).claim(
        "without a snapshot, a load reads the whole life of the aggregate"
        + (", and takes longer with every event" if timed else ""),
        all(one.read_whole == one.length for one in loads) and (whole_is_slow or not timed),
        fact=f"{first.length} events: {min(first.whole):.2f} ms, {last.length:,}: {min(last.whole):.1f} ms",
    )
    run.about(SHORT, topics=[WHY, REPLAY]).claim(
        f"with one, a load reads the {TAIL} events after it, however long the stream is",
        all(one.read_short <= TAIL for one in loads) and (short_is_fast or not timed),
        fact=f"{last.length:,} events: {min(last.short):.2f} ms, {min(last.whole) / min(last.short):,.0f} times faster",
    )
    if timed:
        run.about(SHORT, wrong_way=True, topics=[WHY]).claim(
            f"a stream of {first.length} events loads no faster with a snapshot:"
            " it is one more question to the database",
            min(first.short) > min(first.whole),
            fact=f"{min(first.short):.2f} ms with, {min(first.whole):.2f} ms without",
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
    run.about(SHORT, topics=[REPLAY]).claim(
        "a snapshot at any version and the events after it give the state that all events give",
        equal == kept.used == length,
        fact=f"{equal:,} of {length:,} versions",
    )


# How often.


def note_costs(run: Run, work: Workload) -> None:
    for every, found in work.found.items():
        if kept := found.kept:
            per = {"snapshots written": kept.taken * 1000, "bytes of snapshots written": kept.bytes * 1000}
            label, variant = "events between two snapshots", f"{work.name} state"
            run.figure("a command: load and save", found.ms, "ms", variant=variant, x=float(every), x_label=label)
            for name, value in per.items():
                unit = "per 1,000 commands"
                run.figure(name, value / work.commands, unit, variant=variant, x=float(every), x_label=label)
    run.figure("a command without snapshots", work.found[0].ms, "ms", variant=f"{work.name} state")
    run.figure("best number of events between two snapshots", work.best, "events", variant=f"{work.name} state")


def count_frequency(run: Run, store: PostgresStore, work: Workload) -> None:
    """At scale smoke: too few commands for their times to say anything, but writes and replays can be counted."""
    most, (often, seldom) = max(work.found), (work.taken(1), work.taken(max(work.found)))
    replayed = {every: work.replayed(store, every) for every in work.found}
    run.about(f"{work.name} state", topics=[FREQUENCY]).claim(
        f"{work.name} state: at every event it costs a write each time, seldom a long replay",
        often == work.commands > 10 * seldom and replayed[1] == 0 and replayed[0] > replayed[most] > work.length // 10,
        fact=f"every event: {often} writes with {work.commands} commands, then {replayed[1]} events replayed; "
        f"every {most:,}: {seldom} and {replayed[most]:,}",
    )


def claim_frequency(run: Run, work: Workload) -> None:
    ms = {every: found.ms for every, found in work.found.items()}
    seldom, best = max(ms), work.best
    run.about(f"{work.name} state", topics=[FREQUENCY]).claim(
        f"{work.name} state: at every event it costs a write each time, seldom a long replay; the best is between",
        1 < best < seldom and ms[0] > ms[best],
        fact=f"every {best} events: {ms[best]:.2f} ms a command; every event: {ms[1]:.2f}, every {seldom:,}: "
        f"{ms[seldom]:.2f}, none: {ms[0]:.2f}",
    )


def claim_bytes(run: Run, store: PostgresStore, work: Workload) -> None:
    query = "select avg(length(data) + length(metadata)) from events where stream = %s"
    row = store.connection.execute(query, [work.make(f"{work.name}-1").stream]).fetchone() or (0,)
    kept, event = work.found[1].kept, float(row[0])
    written = kept.bytes / work.commands if kept else 0.0
    run.about(
        f"{work.name} state",
        wrong_way=True,
        topics=[STORAGE, FREQUENCY],
    ).claim(
        "a large state at every event: many times more bytes are written for snapshots than for the events",
        written > 20 * event > 0,
        fact=f"{written:,.0f} bytes of snapshot with every event of {event:.0f} bytes",
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
    run.about(VERSIONED, topics=[STORAGE]).claim(
        "in a table of their own, the newest of each stream: truncating it loses nothing but time",
        before == after and kept.used == len(accounts) and rows == streams > 0,
        fact=f"{rows} rows for {streams} streams; {len(accounts)} loads the same without them",
    )


if __name__ == "__main__":
    experiment.main()
