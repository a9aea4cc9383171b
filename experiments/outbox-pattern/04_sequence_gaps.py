"""Many services write at once. A reader remembers the last position that it has read: does it see every event?

Four readers follow the same live outbox: `position > last` as tutorials have it, the same behind the oldest open
transaction, the pair (xid, position), and Postgres' log. Positions are drawn early and rows appear at commit.
"""

from dataclasses import replace

from outbox.processes import Shop, relay
from outbox.readers import WAYS, overtake, read, write_concurrently
from outbox.relay import wal
from outbox.table import create

from shared import postgres
from shared.checkers import aborted_read, duplicate_delivery, lost, phantom
from shared.event import Event
from shared.experiment import Experiment, Run, Scale
from shared.history import History
from shared.tap import Tap
from shared.wait import until

experiment = Experiment(
    title="Sequence gaps: the event that a reader passes over",
    servers=("postgres", "kafka"),
    topics=(
        "I.5/polling-publisher/poll-outbox-table",
        "I.5/change-data-capture/database-log-monitoring",
        "I.5/ordering-considerations/sequence-numbers",
    ),
)
TUTORIAL, HALF, PAIR = WAYS
LOG = "the log (WAL relay)"
WRONG = TUTORIAL, HALF
WRITERS = 16
PAUSE = 0.004  # seconds of work at most, before the outbox row and again after it: the transaction is open meanwhile


@experiment.run
def main(run: Run) -> None:
    each = run.pick(smoke=80, demo=300, full=1_500)
    run.parameters.update({"writers": WRITERS, "events per writer": each, "work in a transaction up to (s)": 2 * PAUSE})
    shop = open_shop(run, each)
    with run.step(f"{WRITERS} services write, four readers follow"):
        write_and_read(run, shop)
    histories = {way: judge(run, shop, way) for way in (*WAYS, LOG)}
    claim_wrong(run, histories)
    claim_gaps(run, shop, histories[PAIR])
    claim_right(run, histories)


def open_shop(run: Run, each: int) -> Shop:
    """Tables, the index that the tutorial's reader wants, and a slot for the log's reader."""
    conninfo, topic = run.schema(), run.topic("orders")
    create(conninfo)
    with postgres.connect(conninfo) as connection:
        connection.execute("create index on outbox (position)")
    wal.set_up(conninfo, run.name, run.name)
    if not run.keep:
        run.cleanup(lambda: wal.tear_down(conninfo, run.name))
    return Shop(conninfo, run.endpoints["kafka"], topic, run.history_file("writes"), run.seed, each, slot=run.name)


def slug(way: str) -> str:
    return {TUTORIAL: "tutorial", HALF: "half-fix", PAIR: "pair", LOG: "log"}[way]


def write_and_read(run: Run, shop: Shop) -> None:
    """Every reader has a history of its own, and all of them the same table at the same time."""
    recorder = run.recorder(slug(LOG), "experiment")
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        ready = {way: run.folder / f"{slug(way)}.ready" for way in WAYS}
        readers = [
            run.worker(slug(way), read, own_history(run, shop, way), way, slug(way), 0.001, ready[way]) for way in WAYS
        ]
        log = run.worker("log", relay, own_history(run, shop, LOG), "log", 500, 0.05)
        until("the readers to read", lambda: all(path.exists() for path in ready.values()))
        if run.scale is Scale.SMOKE:
            overtake(shop, lambda event: until("the event to be read", lambda: is_read(run, shop, event)))
        run.worker("services", write_concurrently, shop, WRITERS, PAUSE).wait(120)
        for reader in readers:
            reader.stop()
        tap.wait_for(len(History.read(shop.history).committed))
        log.stop()
        tap.catch_up()


def is_read(run: Run, shop: Shop, event: Event) -> bool:
    """Whether the readers that are wrong have passed it. With few writes they may be too late for every race."""
    histories = (History.read(own_history(run, shop, way).history) for way in WRONG)
    return all(event.id in {op.value for op in history.delivered} for history in histories)


def own_history(run: Run, shop: Shop, way: str) -> Shop:
    return replace(shop, history=run.history_file(slug(way)))


def judge(run: Run, shop: Shop, way: str) -> History:
    """The reader's history, with the writes that all of them share."""
    with run.history_file(slug(way)).open("ab") as file:
        file.write(shop.history.read_bytes())
    history = run.judge(slug(way), variant=way, wrong_way=way in WRONG)
    missed = len(lost(history))
    run.figure("events missed", missed, "events", variant=way, wrong_way=way in WRONG)
    return history


def claim_wrong(run: Run, histories: dict[str, History]) -> None:
    history = histories[TUTORIAL]
    run.claim(
        "position > last: it passes over events whose transactions commit late, for good and without an error",
        len(lost(history)) > 0,
        topics=["I.5/polling-publisher/poll-outbox-table", "I.5/ordering-considerations/sequence-numbers"],
        fact=missed(history),
        variant=TUTORIAL,
        wrong_way=True,
    )
    history = histories[HALF]
    run.claim(
        "waiting for older transactions, but reading by position: it still loses events, since xids and positions are"
        " not drawn in one order",
        len(lost(history)) > 0,
        topics=["I.5/polling-publisher/poll-outbox-table", "I.5/ordering-considerations/sequence-numbers"],
        fact=missed(history),
        variant=HALF,
        wrong_way=True,
    )


def claim_gaps(run: Run, shop: Shop, history: History) -> None:
    """Waiting for the missing number is no way out either."""
    with postgres.connect(shop.conninfo) as connection:
        drawn = "pg_sequence_last_value(pg_get_serial_sequence('outbox', 'position'))"
        rows, highest = connection.execute(f"select count(*), {drawn} from outbox").fetchone() or (0, 0)  # noqa: S608
    run.claim(
        "a gap in the positions says nothing: those of rolled back transactions never come, a reader must not wait",
        highest - rows == len(history.aborted) > 0 and not aborted_read(history),
        topics=["I.5/ordering-considerations/sequence-numbers"],
        fact=f"{highest - rows:,} of {highest:,} positions have no row",
        variant=PAIR,
    )


def claim_right(run: Run, histories: dict[str, History]) -> None:
    texts = {
        PAIR: "(xid, position) > last, behind the oldest open transaction: every event is read once",
        LOG: "the log has every event once: what is in it is committed, and nothing appears before its end later",
    }
    topics = {
        PAIR: "I.5/polling-publisher/poll-outbox-table",
        LOG: "I.5/change-data-capture/database-log-monitoring",
    }
    for way, text in texts.items():
        history = histories[way]
        wrong = lost(history) + duplicate_delivery(history) + phantom(history) + aborted_read(history)
        run.claim(
            text,
            not wrong and len(history.committed) > 0,
            topics=[topics[way]],
            fact=missed(history),
            variant=way,
        )


def missed(history: History) -> str:
    return f"{len(lost(history)):,} of {len(history.committed):,} events missed"


if __name__ == "__main__":
    experiment.main()
