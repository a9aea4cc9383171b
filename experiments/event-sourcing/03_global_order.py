"""Many write at once, in transactions of uneven length. A reader remembers how far it is: does it see every event?

Four readers follow the same log: `position > last` as tutorials have it, the same behind the oldest open transaction,
the store's own pair (xid, position), and snapshot windows. Then an event follows from one of another stream: which of
the two is read first? The four differ in the query for what comes next: two of wrong/positions.py, that of
`PostgresStore.read_all`, and that of `read_window`.
"""

from collections.abc import Mapping

from sourcing.stage import readers
from sourcing.stage.bank import Bank
from sourcing.stage.readers import Query, by_xid_and_position
from sourcing.windowed import BEGIN, read_window
from sourcing.wrong.positions import behind_open_transactions, by_position

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
TUTORIAL = Query("position > last", "tutorial", by_position, wrong=True)
HALF = Query("position > last, behind open transactions", "half-fix", behind_open_transactions, wrong=True)
PAIR = Query("(xid, position) > last", "pair", by_xid_and_position)
WINDOWS = Query("snapshot windows", "windows", read_window, BEGIN)
ALL = TUTORIAL, HALF, PAIR, WINDOWS
Read = Mapping[Query, list[str]]  # the types of the events, as they were read


@experiment.run
def main(run: Run) -> None:
    writers = run.pick(smoke=10, demo=16, full=16)
    each = run.pick(smoke=40, demo=300, full=1_500)
    run.parameters.update({"writers": writers, "events per writer": each, "work in a transaction up to (s)": 2 * PAUSE})
    bank = readers.open_bank(run, each, writers)
    with run.step(f"{writers} writers, four readers follow"):
        write_and_read(run, bank, writers)
    histories = {query: judge(run, bank, query) for query in ALL}
    claim_wrong(run, histories)
    claim_gaps(run, bank, histories[PAIR])
    claim_right(run, histories)
    overtake(run)
    relate(run, bank, histories)


def write_and_read(run: Run, bank: Bank, writers: int) -> None:
    """Every reader has a history of its own, and all of them the same table at the same time.

    At scale smoke, where chance need not bring it about, two transactions pass each other before the many begin.
    """
    following = readers.read_along(run, bank, ALL)
    files = [readers.own_history(run, bank, query).history for query in ALL]
    readers.await_readers(bank, files, cross=run.scale is Scale.SMOKE)
    for teller in readers.write_at_once(run, bank, writers, PAUSE):
        teller.wait(120)
    for reader in following:
        reader.stop()


def judge(run: Run, bank: Bank, query: Query) -> History:
    """The reader's history, with the writes that all of them share."""
    about = run.about(query.name, wrong_way=query.wrong)
    history = about.judge(query.slug, also=[bank.history])
    about.figure("events missed", len(lost(history)), "events")
    return history


def claim_wrong(run: Run, histories: dict[Query, History]) -> None:
    texts = {
        TUTORIAL: "position > last: it passes over events whose transactions commit late, for good and without an"
        " error",
        HALF: "waiting for older transactions, but reading by position: it still misses events, since xids and"
        " positions are not drawn in one order",
    }
    for query, text in texts.items():
        history = histories[query]
        run.about(query.name, wrong_way=True, topics=TOPICS).claim(
            text,
            len(lost(history)) > 0,
            fact=f"{len(lost(history)):,} of {len(history.committed):,} events missed",
        )


def claim_gaps(run: Run, bank: Bank, history: History) -> None:
    """Waiting for the missing number is no way out either."""
    empty, highest = readers.gaps(bank.conninfo)
    run.about(PAIR.name, topics=TOPICS).claim(
        "rolled back appends leave gaps in the positions for ever, and no reader of the pair waits for one",
        empty == len(history.aborted) > 0 and not lost(history) and not aborted_read(history),
        fact=f"{empty:,} of {highest:,} positions have no event",
    )


def claim_right(run: Run, histories: dict[Query, History]) -> None:
    texts = {
        PAIR: "(xid, position) > last, behind the oldest open transaction: every event is read once",
        WINDOWS: "snapshot windows, behind no transaction: every event is read once",
    }
    for query, text in texts.items():
        history = histories[query]
        wrong = lost(history) + duplicate_delivery(history) + phantom(history) + aborted_read(history)
        run.about(query.name, topics=TOPICS).claim(
            text,
            not wrong and len(history.delivered) == len(history.committed) > 0,
            fact=f"0 of {len(history.committed):,} events missed" if not wrong else f"{len(wrong)} anomalies",
        )
        run.about(query.name, topics=TOPICS).claim(
            f"{query.name}: within a stream it reads the versions in their order",
            not reordered(history) and len(history.delivered) > 0,
            fact=f"{len(reordered(history))} of {len(history.delivered):,} events out of order",
        )


# Within a stream, the versions and the order of all events must agree.


def overtake(run: Run) -> None:
    """A transaction that has its xid already appends to a stream to which a newer one has appended meanwhile."""
    bank = readers.open_bank(run, 1, 1, "_overtake")
    refused = readers.overtake(bank.conninfo)
    read = readers.versions(bank.conninfo, PAIR)
    run.about(PAIR.name, topics=TOPICS).claim(
        "a transaction that is older than the stream's last event would write version 2 and have it read before"
        " version 1: the store refuses its append",
        bool(refused) and read == [2, 1],
        fact=f"refused: {refused}; inserted all the same, versions are read as {read}",
    )


# Across streams.


def relate(run: Run, bank: Bank, histories: dict[Query, History]) -> None:
    """Two steps that bring it about every time, and what has come about among the many."""
    causes = readers.causes(bank.conninfo)
    many = {query: readers.too_early(history, causes) for query, history in histories.items()}
    for query, count in many.items():
        about = run.about(query.name, wrong_way=query.wrong)
        about.figure("effects read before their cause", count, "events")
    steps, alone = (
        readers.relate(readers.open_bank(run, 1, 1, suffix).conninfo, (PAIR, WINDOWS), by_itself=by_itself)
        for suffix, by_itself in (("_effect", False), ("_alone", True))
    )
    claim_causes(run, steps, alone, many, len(causes))


def claim_causes(run: Run, steps: Read, alone: Read, many: Mapping[Query, int], effects: int) -> None:
    """`steps` and `alone`: what `readers.relate` gave. `many`: how many of the `effects` came too early."""
    right, among = ["Requested", "Granted"], "among all writers {} of {:,} effects before their causes"
    run.about(PAIR.name, topics=TOPICS).claim(
        "what (xid, position) does not promise: an event that is appended in a longer transaction may be read before"
        " its cause, an event of another stream",
        steps[PAIR] == right[::-1],
        fact=f"read as {', '.join(steps[PAIR])}; {among.format(many[PAIR], effects)}",
    )
    run.about(PAIR.name, topics=TOPICS).claim(
        "an append that is a transaction by itself is not: its xid is drawn when its cause is committed",
        alone[PAIR] == right,
        fact=f"read as {', '.join(alone[PAIR])}, beside the same long transaction",
    )
    run.about(WINDOWS.name, topics=TOPICS).claim(
        "by snapshot windows the cause comes first, in the same run",
        steps[WINDOWS] == alone[WINDOWS] == right and many[WINDOWS] == 0 < effects,
        fact=f"read as {', '.join(steps[WINDOWS])}; {among.format(many[WINDOWS], effects)}",
    )


if __name__ == "__main__":
    experiment.main()
