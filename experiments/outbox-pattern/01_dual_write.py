"""A service writes a row and publishes an event. It dies before, between or after the two: what is left?

Three ways under the same workload, the same seed and the same kills: commit then publish, publish then commit, and the
outbox. Rows without events and events without rows are counted by comparing the database with the topic.
"""

import random

from outbox.stage.processes import Shop, make_relay, serve, serve_in_session, settle
from outbox.table import create
from outbox.windows import WriteWindow

from shared import postgres
from shared.checkers import aborted_read, duplicate_delivery, lost, phantom
from shared.experiment import Experiment, Run
from shared.faults import Kill
from shared.history import Action, History, Outcome
from shared.tap import Tap

experiment = Experiment(
    title="Dual write: the row and the event",
    servers=("postgres", "kafka"),
    topics=(
        "I.5/the-problem/database-write-message-publish",
        "I.5/the-problem/dual-write-problem",
        "I.5/the-problem/partial-failures",
        "I.5/the-problem/inconsistency-risk",
        "I.5/outbox-pattern/write-event-to-outbox-table",
        "I.5/outbox-pattern/same-transaction-as-business-data",
        "I.5/outbox-implementation/transaction-scope",
    ),
)
WRONG = "commit, then publish", "publish, then commit"
RIGHT, SESSION = "outbox", "outbox, by SQLAlchemy"
# Rows of either table without a partner count, too.
BY_TRANSACTION = """
select count(*) filter (where order_steps.xmin = outbox.xid::xid), count(*)
from order_steps full join outbox on order_id = aggregate_id and number = sequence
"""


@experiment.run
def main(run: Run) -> None:
    count = run.parameters["events per case"] = run.pick(smoke=40, demo=200, full=2_000)
    found: dict[tuple[str, str], History] = {}
    shops = []
    for way in (*WRONG, RIGHT):
        for window in WriteWindow:
            with run.step(f"{way}: kill -9 {window}"):
                shop, history = killed(run, way, window, int(count))
            found[way, window] = history
            shops += [shop] if way == RIGHT else []
            note_figures(run, way, window, history)
        with run.step(f"{way}: the database refuses some orders"):
            shop, history = refused(run, way, int(count))
        found[way, "refused"] = history
        shops += [shop] if way == RIGHT else []
        note_figures(run, way, "no kill, refused rows", history)
    with run.step(f"{SESSION}: kill -9 {WriteWindow.BETWEEN}, and some orders refused"):
        found[SESSION, "killed, refused"] = in_session(run, int(count))
    claim_wrong_ways(run, found)
    claim_outbox(run, found)
    claim_one_transaction(run, shops)
    claim_session(run, found[SESSION, "killed, refused"], int(count))


def killed(run: Run, way: str, window: WriteWindow, count: int) -> tuple[Shop, History]:
    """One way, killed once in the window at a seeded moment, started again with the next step."""
    name = f"{way.replace(', then ', '-')} {window}".replace(" ", "-")
    shop = open_shop(run, name, count)
    nth = random.Random(f"{run.seed} {name}").randrange(count // 4, count * 3 // 4)
    recorder = run.recorder(name, "experiment")
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        run.worker("service", serve, shop, way, 0, Kill(window, nth)).wait()
        run.worker("service", serve, shop, way, nth).wait()
        if way == RIGHT:
            relay_everything(shop)
        tap.catch_up()
    settle(shop, recorder)
    return shop, run.judge(name, variant=way, wrong_way=way != RIGHT, fault=f"SIGKILL {window}")


def refused(run: Run, way: str, count: int) -> tuple[Shop, History]:
    """No kill at all: every tenth order costs nothing, which a check constraint refuses."""
    name = f"{way.replace(', then ', '-').replace(' ', '-')}-refused"
    shop = open_shop(run, name, count, refused_every=10)
    recorder = run.recorder(name, "experiment")
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        run.worker("service", serve, shop, way).wait()
        if way == RIGHT:
            relay_everything(shop)
        tap.catch_up()
    settle(shop, recorder)
    return shop, run.judge(name, variant=way, wrong_way=way != RIGHT)


def in_session(run: Run, count: int) -> History:
    """The outbox in a SQLAlchemy session's transactions: killed between the two inserts, and some refused."""
    shop = open_shop(run, name := "outbox-session", count, refused_every=10)
    nth = random.Random(f"{run.seed} {name}").randrange(count // 4, count * 3 // 4)
    recorder = run.recorder(name, "experiment")
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        # A refused order does not come as far as the window.
        run.worker("service", serve_in_session, shop, 0, Kill(WriteWindow.BETWEEN, nth)).wait()
        run.worker("service", serve_in_session, shop, attempted(shop)).wait()
        relay_everything(shop)
        tap.catch_up()
    settle(shop, recorder)
    return run.judge(name, variant=SESSION, fault=f"SIGKILL {WriteWindow.BETWEEN}")


def attempted(shop: Shop) -> int:
    return sum(op.outcome is Outcome.INVOKE for op in History.read(shop.history).of(Action.WRITE))


def open_shop(run: Run, name: str, count: int, refused_every: int = 0) -> Shop:
    conninfo = run.schema(f"_{len(run.histories)}")
    create(conninfo)
    broker, topic, history = run.endpoints["kafka"], run.topic(name), run.history_file(name)
    return Shop(conninfo, broker, topic, history, run.seed, count, refused_every=refused_every)


def relay_everything(shop: Shop) -> None:
    """Empty the outbox."""
    with postgres.connect(shop.conninfo) as connection:
        relay = make_relay(shop, "publish, then mark", connection)
        while relay.step():
            continue


def note_figures(run: Run, way: str, case: str, history: History) -> None:
    without_event, without_row = len(lost(history)), len(phantom(history)) + len(aborted_read(history))
    for name, value in (("rows without an event", without_event), ("events without a row", without_row)):
        run.figure(name, value, "events", variant=way, wrong_way=way != RIGHT, x=case, x_label="killed")


def claim_wrong_ways(run: Run, found: dict[tuple[str, str], History]) -> None:
    first, second = WRONG
    losing, inventing = found[first, WriteWindow.BETWEEN], found[second, WriteWindow.BETWEEN]
    run.claim(
        "commit, then publish: killed between the two, it leaves a row whose event never comes",
        len(lost(losing)) == 1 and not phantom(losing),
        topics=["I.5/the-problem/database-write-message-publish", "I.5/the-problem/dual-write-problem"],
        fact=f"{len(lost(losing))} of {len(losing.committed)} events lost",
        variant=first,
        wrong_way=True,
    )
    run.claim(
        "publish, then commit: killed between the two, it has told the world of a row that does not exist",
        len(phantom(inventing)) == 1 and not lost(inventing),
        topics=["I.5/the-problem/inconsistency-risk", "I.5/the-problem/dual-write-problem"],
        fact=f"{len(phantom(inventing))} phantom event",
        variant=second,
        wrong_way=True,
    )
    history = found[second, "refused"]
    run.claim(
        "publish, then commit: it needs no crash, a row that the database refuses is enough",
        len(history.aborted) > 0 and len(aborted_read(history)) == len(history.aborted),
        topics=["I.5/the-problem/partial-failures"],
        fact=f"{len(aborted_read(history))} of {len(history.aborted)} refused orders were published",
        variant=second,
        wrong_way=True,
    )


def claim_outbox(run: Run, found: dict[tuple[str, str], History]) -> None:
    histories = {case: history for (way, case), history in found.items() if way == RIGHT}
    broken = {case: lost(h) + phantom(h) + aborted_read(h) for case, h in histories.items()}
    run.claim(
        "outbox: killed in any window, every row has its event and every event its row",
        not any(broken.values()) and len(broken) == len(WriteWindow) + 1,
        topics=[
            "I.5/outbox-pattern/write-event-to-outbox-table",
            "I.5/outbox-pattern/same-transaction-as-business-data",
        ],
        fact=f"0 lost, 0 phantom in {len(histories)} cases",
        variant=RIGHT,
    )
    between = histories[WriteWindow.BETWEEN]
    undone = set(between.written) - between.committed
    run.claim(
        "outbox: killed between the two inserts, neither is there",
        len(undone) == 1 and not undone & {op.value for op in between.delivered},
        topics=["I.5/outbox-implementation/transaction-scope"],
        fact=f"{len(undone)} step undone, with its event",
        variant=RIGHT,
    )
    refused_orders = histories["refused"]
    run.claim(
        "outbox: an order that the database refuses is not published",
        len(refused_orders.aborted) > 0 and not aborted_read(refused_orders) and not duplicate_delivery(refused_orders),
        topics=["I.5/the-problem/partial-failures"],
        fact=f"0 of {len(refused_orders.aborted)} refused orders published",
        variant=RIGHT,
    )


def claim_one_transaction(run: Run, shops: list[Shop]) -> None:
    """No kill hits the moment after a commit for certain: the transaction ids tell an event inserted a moment later."""
    together = total = 0
    for shop in shops:
        with postgres.connect(shop.conninfo) as connection:
            row = connection.execute(BY_TRANSACTION).fetchone()
        together, total = together + (row[0] if row else 0), total + (row[1] if row else 0)
    run.claim(
        "outbox: every event was written by the very transaction of its row, as their transaction ids say",
        together == total > 0 and len(shops) == len(WriteWindow) + 1,
        topics=[
            "I.5/outbox-implementation/transaction-scope",
            "I.5/outbox-pattern/same-transaction-as-business-data",
        ],
        fact=f"{together:,} of {total:,} rows and events share their xid",
        variant=RIGHT,
    )


def claim_session(run: Run, history: History, count: int) -> None:
    broken = lost(history) + phantom(history) + aborted_read(history)
    undone = len(history.written) - len(history.committed) - len(history.aborted)
    run.claim(
        "outbox, by SQLAlchemy: what the session commits has row and event, what is killed or refused has neither",
        not broken and undone == 1 and len(history.aborted) == count // 10,
        topics=[
            "I.5/outbox-implementation/transaction-scope",
            "I.5/outbox-pattern/same-transaction-as-business-data",
        ],
        fact=f"{len(history.committed):,} with both, 1 killed and {len(history.aborted)} refused with neither",
        variant=SESSION,
    )


if __name__ == "__main__":
    experiment.main()
