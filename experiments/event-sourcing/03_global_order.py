"""Many write at once, in transactions of uneven length. A reader remembers how far it is: does it see every event?

Four readers follow the same log: `position > last` as tutorials have it, the same behind the oldest open transaction,
the store's own pair (xid, position), and snapshot windows. Then an event follows from one of another stream: which of
the two is read first? The four differ in the query for what comes next: WAYS in stage/reading.py.
"""

from sourcing.errors import TransactionTooOld
from sourcing.event import NewEvent
from sourcing.postgres import PostgresStore
from sourcing.stage import causing, reading
from sourcing.stage.holding import await_readers
from sourcing.stage.reading import HALF, PAIR, SLUGS, TUTORIAL, WAYS, WINDOWS, own_history
from sourcing.stage.writers import Bank, gate

from shared import postgres
from shared.checkers import aborted_read, duplicate_delivery, lost, phantom, reordered
from shared.experiment import Experiment, Run, Scale
from shared.history import History

experiment = Experiment(
    title="Global order: the event that a reader passes over",
    servers=("postgres",),
    topics=("I.2/event-store-requirements/ordering-guarantees",),
)
TOPICS = ["I.2/event-store-requirements/ordering-guarantees"]
PAUSE = 0.004  # seconds of work at most, before the append and again after it: the transaction is open meanwhile
BLIND = """
insert into events (stream, version, type, schema_version, id, data, metadata)
select stream, version + 1, type, schema_version, gen_random_uuid(), data, metadata from events
"""


@experiment.run
def main(run: Run) -> None:
    writers = run.pick(smoke=10, demo=16, full=16)
    each = run.pick(smoke=40, demo=300, full=1_500)
    run.parameters.update({"writers": writers, "events per writer": each, "work in a transaction up to (s)": 2 * PAUSE})
    bank = reading.open_bank(run, each, writers)
    with run.step(f"{writers} writers, four readers follow"):
        write_and_read(run, bank, writers)
    histories = {way: judge(run, bank, way) for way in WAYS}
    claim_wrong(run, histories)
    claim_gaps(run, bank, histories[PAIR])
    claim_right(run, histories)
    overtake(run)
    relate(run, bank, histories)


def write_and_read(run: Run, bank: Bank, writers: int) -> None:
    """Every reader has a history of its own, and all of them the same table at the same time.

    At scale smoke, where chance need not bring it about, two transactions pass each other before the many begin.
    """
    readers = [run.worker(SLUGS[way], reading.follow, own_history(run, bank, way), way, SLUGS[way]) for way in WAYS]
    await_readers(bank, [own_history(run, bank, way).history for way in WAYS], cross=run.scale is Scale.SMOKE)
    with gate(bank.conninfo, writers):
        tellers = [run.worker(f"teller-{n}", reading.write_unevenly, bank, n, PAUSE) for n in range(writers)]
    for teller in tellers:
        teller.wait(120)
    for reader in readers:
        reader.stop()


def judge(run: Run, bank: Bank, way: str) -> History:
    """The reader's history, with the writes that all of them share."""
    with run.history_file(SLUGS[way]).open("ab") as file:
        file.write(bank.history.read_bytes())
    history = run.judge(SLUGS[way], variant=way, wrong_way=way in reading.WRONG)
    run.figure("events missed", len(lost(history)), "events", variant=way, wrong_way=way in reading.WRONG)
    return history


def claim_wrong(run: Run, histories: dict[str, History]) -> None:
    texts = {
        TUTORIAL: "position > last: it passes over events whose transactions commit late, for good and without an"
        " error",
        HALF: "waiting for older transactions, but reading by position: it still misses events, since xids and"
        " positions are not drawn in one order",
    }
    for way, text in texts.items():
        history = histories[way]
        run.about(way, wrong_way=True, topics=TOPICS).claim(
            text,
            len(lost(history)) > 0,
            fact=f"{len(lost(history)):,} of {len(history.committed):,} events missed",
        )


def claim_gaps(run: Run, bank: Bank, history: History) -> None:
    """Waiting for the missing number is no way out either."""
    with postgres.connect(bank.conninfo) as connection:
        drawn = "pg_sequence_last_value(pg_get_serial_sequence('events', 'position'))"
        rows, highest = connection.execute(f"select count(*), {drawn} from events").fetchone() or (0, 0)  # noqa: S608
    run.about(PAIR, topics=TOPICS).claim(
        "rolled back appends leave gaps in the positions for ever, and no reader of the pair waits for one",
        highest - rows == len(history.aborted) > 0 and not lost(history) and not aborted_read(history),
        fact=f"{highest - rows:,} of {highest:,} positions have no event",
    )


def claim_right(run: Run, histories: dict[str, History]) -> None:
    texts = {
        PAIR: "(xid, position) > last, behind the oldest open transaction: every event is read once",
        WINDOWS: "snapshot windows, behind no transaction: every event is read once",
    }
    for way, text in texts.items():
        history = histories[way]
        wrong = lost(history) + duplicate_delivery(history) + phantom(history) + aborted_read(history)
        run.about(way, topics=TOPICS).claim(
            text,
            not wrong and len(history.delivered) == len(history.committed) > 0,
            fact=f"0 of {len(history.committed):,} events missed" if not wrong else f"{len(wrong)} anomalies",
        )
        run.about(way, topics=TOPICS).claim(
            "within a stream it reads the versions in their order",
            not reordered(history) and len(history.delivered) > 0,
            fact=f"{len(reordered(history))} of {len(history.delivered):,} events out of order",
        )


# Within a stream, the versions and the order of all events must agree.


def overtake(run: Run) -> None:
    """A transaction that has its xid already appends to a stream to which a newer one has appended meanwhile."""
    bank, stream = reading.open_bank(run, 1, 1, "_overtake"), "account-1"
    with postgres.connect(bank.conninfo) as older, postgres.connect(bank.conninfo) as newer, older.transaction():
        older.execute("insert into notes values ('this draws the xid')")
        PostgresStore(newer).append(stream, [NewEvent("Deposited", {"cents": 1})])
        try:
            PostgresStore(older).append(stream, [NewEvent("Deposited", {"cents": 2})])
        except TransactionTooOld as error:
            refused = str(error)
        else:
            refused = ""
        older.execute(BLIND)  # what the append would have come to
    with postgres.connect(bank.conninfo) as connection:
        read: list[int] = []
        reading.Reader(connection, PAIR, lambda event: read.append(event.version)).finish()
    run.about(PAIR, topics=TOPICS).claim(
        "a transaction that is older than the stream's last event would write version 2 and have it read before"
        " version 1: the store refuses its append",
        bool(refused) and read == [2, 1],
        fact=f"refused: {refused}; inserted all the same, versions are read as {read}",
    )


# Across streams.


def relate(run: Run, bank: Bank, histories: dict[str, History]) -> None:
    """Two steps that bring it about every time, and what has come about among the many."""
    with postgres.connect(bank.conninfo) as connection:
        causes = causing.causes(connection)
    many = {way: causing.too_early(history, causes) for way, history in histories.items()}
    for way, count in many.items():
        run.figure("effects read before their cause", count, "events", variant=way, wrong_way=way in reading.WRONG)
    steps, alone = (
        causing.relate(reading.open_bank(run, 1, 1, suffix).conninfo, by_itself=by_itself)
        for suffix, by_itself in (("_effect", False), ("_alone", True))
    )
    causing.claim(run, steps, alone, many, len(causes))


if __name__ == "__main__":
    experiment.main()
