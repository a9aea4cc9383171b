"""Payments, published once or with a batch of them twice, and what consumers that are killed make of the accounts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from outbox.consumer import ConsumeWindow, Way
from outbox.stage.consuming import SCHEMA, Payments, accounts, consume, due
from outbox.stage.processes import Shop, make_relay, relay, write_backlog
from outbox.table import create
from outbox.windows import RelayWindow
from shared.checkers import duplicate_delivery, duplicate_effect, lost
from shared.faults import Kill
from shared.history import Action, History, Outcome
from shared.postgres import Connection, connect
from shared.run import About, Run
from shared.wait import until

# The case -> what was killed in it, in the words of its figures.
CASES = {"killed": "the consumer", "again": "the relay", "late": "the relay, ids forgotten"}


@dataclass(frozen=True)
class Reader:
    """A consumer of the payments: how it handles an event, and where it is killed when consumers are."""

    about: About
    way: Way
    window: ConsumeWindow | None = None

    def name(self, case: str) -> str:
        return f"{case}-{self.about.variant.replace(', ', '-').replace(' ', '-')}"


@dataclass(frozen=True)
class Outcomes:
    """What one consumer made of the payments."""

    history: History
    twice: int  # effects had again
    never: int  # events without their effect
    wrong: int  # cents by which accounts are off, all of them together
    lost: int = 0

    @property
    def exact(self) -> bool:
        """Every event counted once, and every cent is right."""
        return (self.twice, self.never, self.wrong) == (0, 0, 0)

    @property
    def again(self) -> int:
        """Deliveries of what was delivered before."""
        return len(duplicate_delivery(self.history))

    @property
    def moved(self) -> int:
        """Events that lie at several offsets."""
        places: dict[str, set[tuple[int, int]]] = {}
        for op in self.history.delivered:
            places.setdefault(op.value, set()).add((op.partition, op.offset))
        return sum(len(found) > 1 for found in places.values())

    @property
    def came_again(self) -> str:
        """From the first delivery of an event to the second: the shortest and the longest time."""
        times: dict[str, list[int]] = {}
        for op in self.history.delivered:
            times.setdefault(op.value, []).append(op.at)
        gaps = [(at[-1] - at[0]) / 1e9 for at in times.values() if len(at) > 1]
        return f"{min(gaps):.1f} to {max(gaps):.1f} s" if gaps else "no time"


def open_shop(run: Run, name: str, count: int) -> Payments:
    """Payments in an outbox, not published yet."""
    conninfo = run.schema(f"_{name}")
    create(conninfo)
    topic, history = run.topic(name), run.history_file(f"published-{name}")
    shop = Payments(conninfo, run.endpoints["kafka"], topic, history, run.seed, count)
    write_backlog(shop)
    return shop


def publish_and_die(run: Run, shop: Shop) -> None:
    """The relay dies when the broker has its second batch: who publishes the rest begins with this batch."""
    kill = Kill(RelayWindow.AFTER_PUBLISH, nth=2)
    run.worker("relay", relay, shop, "publish, then mark", shop.count // 4, 0.02, kill).wait()


def publish_rest(shop: Shop) -> None:
    """Publish all that is not marked."""
    with connect(shop.conninfo) as connection:
        relaying = make_relay(shop, "publish, then mark", connection, shop.count // 4)
        while relaying.step():
            continue


def consume_all(run: Run, shop: Payments, readers: Sequence[Reader], case: str, killing: bool) -> dict[str, Outcomes]:
    """Every consumer at once, each with a group and accounts of its own; killed ones are started again."""
    homes = open_homes(run, readers, case)
    if killing:
        nth = random.Random(f"{run.seed} {case}").randrange(shop.count // 4, shop.count // 2)  # noqa: RUF100, S311
        read(run, shop, readers, case, homes, nth)
    read(run, shop, readers, case, homes)
    return judge(shop, readers, case, homes)


def open_homes(run: Run, readers: Sequence[Reader], case: str) -> list[str]:
    """Every consumer's own tables."""
    homes = [run.schema(f"_{case}_{number}") for number in range(len(readers))]
    for home in homes:
        with connect(home) as connection:
            connection.execute(SCHEMA)
    return homes


def read(run: Run, shop: Payments, readers: Sequence[Reader], case: str, homes: Sequence[str], nth: int = 0) -> None:
    """All consumers read on to the end of the topic, or until they are killed in their windows at the nth event."""
    running = []
    for reader, home in zip(readers, homes, strict=True):
        name = reader.name(case)
        window, own = reader.window if nth else None, replace(shop, history=run.history_file(name))
        running.append(run.worker(name, consume, own, reader.way, window, nth, home))
    for worker in running:
        worker.wait()


def judge(shop: Payments, readers: Sequence[Reader], case: str, homes: Sequence[str]) -> dict[str, Outcomes]:
    """Variant -> what its consumer made of the payments."""
    return {reader.about.variant: _judge(shop, reader, case, home) for reader, home in zip(readers, homes, strict=True)}


def _judge(shop: Payments, reader: Reader, case: str, home: str) -> Outcomes:
    """By the consumer's history, together with what was written and published, and by its accounts."""
    about, name = reader.about, reader.name(case)
    killed = reader.window if case == "killed" else RelayWindow.AFTER_PUBLISH
    with about.run.history_file(name).open("ab") as file:
        file.write(shop.history.read_bytes())
    history = about.judge(name, fault=f"SIGKILL {killed}")
    effects = {op.value for op in history.of(Action.EFFECT, Outcome.OK)}
    never, paid, had = len(history.committed - effects), due(shop), accounts(home)
    wrong = sum(abs(paid[customer] - had.get(customer, 0)) for customer in paid)
    found = Outcomes(history, len(duplicate_effect(history)), never, wrong, len(lost(history)))
    for what, value in (("effects had twice", found.twice), ("effects never had", never)):
        about.figure(what, value, "events", x=CASES[case], x_label="killed")
    return found


def await_silence(connection: Connection, silence: timedelta) -> None:
    """Return when this consumer has handled nothing for so long: as long as the relay is down at least."""

    def silent() -> bool:
        row = connection.execute("select clock_timestamp() - max(handled_at) from inbox").fetchone()
        return bool(row and row[0] > silence)

    until("the relay to have been down for its time", silent)
