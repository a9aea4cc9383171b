"""Payments, published once or with a batch of them twice, and consumers that keep accounts of them, killed or not.

Effect first, offset after, as every Kafka consumer does that loses nothing. What differs is how one knows an event that
it had before.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from confluent_kafka import OFFSET_STORED, Message, TopicPartition
from confluent_kafka import Consumer as Client
from msgspec import structs

from outbox import deadletters, inbox
from outbox.consumer import Consumer, ConsumeWindow, Handler, Watcher, handle_or_keep
from outbox.relay.polling import PollingPublisher
from outbox.stage.shop import Shop, publish_all, relay
from outbox.windows import RelayWindow
from shared import kafka
from shared.about import About
from shared.checkers import duplicate_delivery, duplicate_effect, lost
from shared.event import Event
from shared.faults import Crash, Kill, nowhere
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from shared.run import Run, slug
from shared.wait import until

SCHEMA = f"""
create table account (customer text primary key, cents bigint not null);
create table seen (mark text primary key);
{inbox.SCHEMA}
{deadletters.SCHEMA}
"""
BATCH = 10  # messages between two commits of offsets


@dataclass(frozen=True)
class Payments(Shop):
    """A shop whose events are instalments: four payments of one order have the same payload, to the byte."""

    def events(self, first: int = 0) -> Iterator[Event]:
        for event in super().events(first):
            data = {name: event.data[name] for name in ("order", "customer", "cents")}
            yield replace(event, type="shop.payment.received", data=data)


Receive = Callable[[Consumer, Message], None]  # what is done with a message


class Recording(Watcher):
    """Writes down what a consumer does."""

    def __init__(self, recorder: Recorder, group: str) -> None:
        self.recorder, self.group = recorder, group

    def came(self, message: Message, event: Event) -> None:
        self._add(message, Action.DELIVER, event)

    def done(self, message: Message, event: Event) -> None:
        self._add(message, Action.EFFECT, event)

    def refused(self, message: Message, reason: Exception) -> None:
        failed = Op(now(), self.recorder.process, Action.DELIVER, Outcome.FAIL, note=str(reason), group=self.group)
        self.recorder.add(structs.replace(failed, **_place(message)))

    def _add(self, message: Message, action: Action, event: Event) -> None:
        what = Outcome.OK, event.id, event.subject, event.sequence
        op = Op(now(), self.recorder.process, action, *what, group=self.group)
        self.recorder.add(structs.replace(op, **_place(message)))


def _place(message: Message) -> dict[str, object]:
    return {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}


def consume(
    shop: Shop,
    handler: Handler,
    window: ConsumeWindow | None = None,
    nth: int = 1,
    conninfo: str = "",
    receive: Receive = handle_or_keep,
) -> None:
    """A process: handle all that the topic holds from the group's offset on; killed in the window when one is given.

    `conninfo` is the consumer's own database, the shop's unless given. Its group is named after its history.
    """
    group, left = f"{shop.topic}.{shop.history.stem}", set(kafka.end_offsets(shop.broker, shop.topic))
    client = Client({**kafka.config(shop.broker), **kafka.CONSUMER, "group.id": group, "enable.partition.eof": True})
    # Assigned, not subscribed: a member killed by -9 would keep its partitions until its session ends.
    client.assign([TopicPartition(shop.topic, partition, OFFSET_STORED) for partition in left])
    with Recorder(shop.history, "consumer") as recorder, connect(conninfo or shop.conninfo) as connection:
        at = Crash(recorder, window, nth) if window else nowhere
        consumer = Consumer(connection, group, handler, at, Recording(recorder, group))
        while left:
            messages = client.consume(BATCH, timeout=0.05)
            left -= {kafka.position(message)[0] for message in messages if kafka.at_end(message)}
            records = list(kafka.checked(message for message in messages if not kafka.at_end(message)))
            for message in records:
                receive(consumer, message)
            if records:
                client.commit(asynchronous=False)
    client.close()


def accounts(conninfo: str) -> dict[str, int]:
    """Customer -> cents."""
    with connect(conninfo) as connection:
        return dict(connection.execute("select customer, cents from account").fetchall())


def due(shop: Shop) -> Counter[str]:
    """Customer -> cents paid."""
    paid: Counter[str] = Counter()
    for event in shop.events():
        paid[event.data["customer"]] += event.data["cents"]
    return paid


def euros(cents: int) -> str:
    return f"{cents / 100:,.2f}"


# The case -> what was killed in it, in the words of its figures.
CASES = {"killed": "the consumer", "again": "the relay", "late": "the relay, ids forgotten"}


@dataclass(frozen=True)
class Bookkeeper:
    """A consumer of the payments: how it handles an event, and where it is killed when consumers are."""

    about: About
    handler: Handler
    window: ConsumeWindow | None = None

    def name(self, case: str) -> str:
        return f"{case}-{slug(self.about.variant)}"


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


def open_payments(run: Run, name: str, count: int) -> Payments:
    """Payments in an outbox, not published yet."""
    shop = replace(Payments.open(run, name, count), history=run.history_file(f"published-{name}"))
    shop.write_backlog()
    return shop


def publish_and_die(run: Run, shop: Shop) -> None:
    """The relay dies when the broker has its second batch: who publishes the rest begins with this batch."""
    kill = Kill(RelayWindow.AFTER_PUBLISH, nth=2)
    run.worker("relay", relay, shop, PollingPublisher, shop.count // 4, kill=kill).wait()


def publish_rest(shop: Shop) -> None:
    """Publish all that is not marked."""
    publish_all(shop, PollingPublisher, shop.count // 4)


def consume_all(
    run: Run, shop: Payments, keepers: Sequence[Bookkeeper], case: str, killing: bool
) -> dict[str, Outcomes]:
    """Every consumer at once, each with a group and accounts of its own; killed ones are started again."""
    homes = open_homes(run, keepers, case)
    if killing:
        nth = random.Random(f"{run.seed} {case}").randrange(shop.count // 4, shop.count // 2)
        read(run, shop, keepers, case, homes, nth)
    read(run, shop, keepers, case, homes)
    return judge(shop, keepers, case, homes)


def open_homes(run: Run, keepers: Sequence[Bookkeeper], case: str) -> list[str]:
    """Every consumer's own tables."""
    homes = [run.schema(f"_{case}_{number}") for number in range(len(keepers))]
    for home in homes:
        with connect(home) as connection:
            connection.execute(SCHEMA)
    return homes


def read(
    run: Run, shop: Payments, keepers: Sequence[Bookkeeper], case: str, homes: Sequence[str], nth: int = 0
) -> None:
    """All consumers read on to the end of the topic, or until they are killed in their windows at the nth event."""
    running = []
    for keeper, home in zip(keepers, homes, strict=True):
        name = keeper.name(case)
        window, own = keeper.window if nth else None, replace(shop, history=run.history_file(name))
        running.append(run.worker(name, consume, own, keeper.handler, window, nth, home))
    for worker in running:
        worker.wait()


def judge(shop: Payments, keepers: Sequence[Bookkeeper], case: str, homes: Sequence[str]) -> dict[str, Outcomes]:
    """Variant -> what its consumer made of the payments."""
    return {keeper.about.variant: _judge(shop, keeper, case, home) for keeper, home in zip(keepers, homes, strict=True)}


def _judge(shop: Payments, keeper: Bookkeeper, case: str, home: str) -> Outcomes:
    """By the consumer's history, together with what was written and published, and by its accounts."""
    about, name = keeper.about, keeper.name(case)
    killed = keeper.window if case == "killed" else RelayWindow.AFTER_PUBLISH
    history = about.judge(name, f"SIGKILL {killed}", also=[shop.history])
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
