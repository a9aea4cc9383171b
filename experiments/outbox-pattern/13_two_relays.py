"""A relay hangs, an operator starts a second one, then the first one wakes up: is every event published twice?

Two cursor relays share one checkpoint. In the right way, CursorRelay takes a lock of its session as it begins, by
`hold` (relay/holding.py). In the wrong way the lock ends with its statement: one call, `let_go`, gives it up at once
(second_let_in).
"""

from outbox.relay.cursor import CursorRelay
from outbox.relay.holding import let_go
from outbox.stage.shop import Shop, at_work, make_relay, relay, watched

from shared import postgres
from shared.checkers import duplicate_delivery, lost, reordered
from shared.errors import LabError
from shared.experiment import Experiment, Run
from shared.faults import Faults
from shared.history import History

experiment = Experiment(
    title="Two relays of one name",
    servers=("postgres", "kafka"),
    topics=("I.5/ordering-considerations/per-aggregate-ordering",),
)
TWO, SOLE = "a lock that ends with its statement", "a lock of the session"


@experiment.run
def main(run: Run) -> None:
    count = run.parameters["events"] = run.pick(smoke=50, demo=500, full=5_000)
    with run.step("two relays, and a row lock that ends with its statement"):
        two = second_let_in(run, count)
    with run.step("the first one hangs, the second one is refused; the first one is killed, the second one goes on"):
        claim_sole(run, *second_refused(run, count), two)


def second_let_in(run: Run, count: int) -> History:
    """WRONG: what a row lock comes to that ends with its statement. Both read the note, then both publish."""
    shop = Shop.open(run, "two", count)
    shop.write_backlog()
    with (
        watched(run, shop),
        postgres.connect(shop.conninfo) as mine,
        postgres.connect(shop.conninfo) as other,
    ):
        first = make_relay(shop, CursorRelay, mine)
        let_go(mine, "cursor")
        for relaying in (first, make_relay(shop, CursorRelay, other)):
            relaying.step()
    return run.judge("two", variant=TWO, wrong_way=True)


def second_refused(run: Run, count: int) -> tuple[History, bool, str]:
    """A relay that hangs; what the second one says, and whether it names the first; the first killed, the second in."""
    shop, error = Shop.open(run, "sole", count), ""
    with (
        watched(run, shop) as tap,
        postgres.connect(shop.conninfo) as other,
    ):
        first = run.worker("relay-1", relay, shop, CursorRelay, process="relay-1")
        session = first.ready().session
        first.pause()
        shop.write_backlog()
        try:
            make_relay(shop, CursorRelay, other, patience=0.1)
        except LabError as refused:
            error = str(refused)
        Faults(tap.recorder).kill(first)
        with at_work(make_relay(shop, CursorRelay, other)):
            tap.wait_for(count)
    return run.judge("sole", variant=SOLE, fault="SIGKILL"), f"session {session} " in error, error


def claim_sole(run: Run, sole: History, named: bool, error: str, two: History) -> None:
    twice = len(duplicate_delivery(two))
    run.claim(
        "two cursor relays with one checkpoint and a lock that ends with its statement: each publishes every event",
        twice == len(two.committed) > 0,
        topics=["I.5/ordering-considerations/per-aggregate-ordering"],
        fact=f"{twice:,} of {len(two.committed):,} events twice",
        variant=TWO,
        wrong_way=True,
    )
    run.claim(
        "a lock of the session: the second one is refused while the first one lives, and goes on when it is killed",
        named and in_order(sole),
        topics=["I.5/ordering-considerations/per-aggregate-ordering"],
        fact=error.partition(": ")[0],
        variant=SOLE,
    )


def in_order(history: History) -> bool:
    return len(history.committed) > 0 and not reordered(history) + lost(history) + duplicate_delivery(history)


if __name__ == "__main__":
    experiment.main()
