"""Debezium reads the outbox from the database's log: does it publish the same events, how fast, and what if it dies?

The same service and the same outbox as before. The EventRouter is compared with the polling publisher byte for byte,
by what each asks of the database, by latency, and with Connect killed by -9 under load.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from outbox.relay.debezium import Connector
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.stage.measuring import again_after, idle_scans, recovery, scans, waits
from outbox.stage.processes import Shop, relay, serve, settle, write_backlog
from outbox.table import create
from outbox.wrong.jsonb import create_jsonb_copy

from shared import kafka, postgres
from shared.checkers import aborted_read, duplicate_delivery, lost, phantom
from shared.experiment import Experiment, Run, Scale
from shared.faults import Faults
from shared.history import History, Recorder, now
from shared.tap import Tap

experiment = Experiment(
    title="Debezium with the EventRouter",
    servers=("postgres", "kafka", "connect"),
    topics=(
        "I.5/change-data-capture/database-log-monitoring",
        "I.5/change-data-capture/debezium",
        "I.5/change-data-capture/no-polling-overhead",
        "I.5/change-data-capture/lower-latency",
        "I.5/debezium-setup/kafka-connect",
        "I.5/debezium-setup/database-connectors",
        "I.5/debezium-setup/outbox-transformation",
        "I.5/debezium-setup/event-routing",
    ),
)
DEBEZIUM, POLLING, JSONB = "Debezium", "polling publisher", "Debezium, payload in jsonb"
POLL = 0.1  # seconds between polls of the publisher that Debezium is compared with
RATE = 100.0  # events per second, for latency
BEGINS = 1  # scans by a session that writes: where the outbox is at home (shared/home.sql)


@experiment.run
def main(run: Run) -> None:
    count, idle_for = run.pick(smoke=100, demo=500, full=2_000), run.pick(smoke=0.5, demo=2.0, full=2.0)
    run.parameters.update({"events per case": count, "poll interval ms": POLL * 1000, "rate per s": RATE})
    with run.step("route two kinds of aggregates, and compare with the polling publisher"):
        compare_messages(run, count)
    with run.step("the payload in a jsonb column"):
        compare_jsonb(run, count)
    with run.step("an empty outbox: what does the relay ask of the table?"):
        compare_idle(run, idle_for)
    with run.step(f"latency at {RATE:.0f} events a second"):
        compare_latency(run, count)
    if run.possible("connect", "kill -9 Kafka Connect under load"):
        with run.step("kill -9 Kafka Connect under load"):
            kill_connect(run, max(count, 200))


def open_shop(run: Run, name: str, count: int) -> Shop:
    conninfo = run.schema(f"_{name}")
    create(conninfo)
    return Shop(conninfo, run.endpoints["kafka"], run.topic(name), run.history_file(name), run.seed, count)


@contextmanager
def debezium(run: Run, name: str, table: str = "outbox", **settings: str) -> Iterator[Connector]:
    """A running connector on the outbox of a schema made by open_shop, gone at the end of the block."""
    schema, dotted = f"{run.name}_{name}", {key.replace("_", "."): value for key, value in settings.items()}
    with Connector(
        run.endpoints["connect"], run.endpoints["postgres"], schema, schema, table, dotted
    ).running() as made:
        yield made


def compare_messages(run: Run, count: int) -> None:
    """Orders and payments through one outbox: once by Debezium, and the same rows by the polling publisher."""
    orders = open_shop(run, "orders", count)
    payments = replace(orders, topic=run.topic("payments"), seed=run.seed + 1, prefix="payment")
    shops = orders, payments
    topics = [shop.topic for shop in shops]
    with debezium(run, "orders") as connector, Tap("consumer", orders.broker, topics, recorder(run, orders)) as tap:
        for shop in shops:
            write_backlog(shop)
        tap.wait_for(2 * count)
        state = connector.status()
    twin = f"{run.name}.twin."
    kafka.create_topics(orders.broker, [twin + topic for topic in topics])
    drain(orders, twin)
    by_debezium, by_polling = ({t: messages(orders, prefix + t) for t in topics} for prefix in ("", twin))
    claim_setup(run, state, tap, shops)
    claim_messages(run, by_debezium, by_polling)


def recorder(run: Run, shop: Shop) -> Recorder:
    return run.recorder(shop.history.stem, "experiment")


def drain(shop: Shop, prefix: str) -> None:
    """Empty the outbox with the polling publisher."""
    with postgres.connect(shop.conninfo) as connection:
        relay = PollingPublisher(connection, Publisher(shop.broker, prefix))
        while relay.step():
            continue


def messages(shop: Shop, topic: str) -> dict[bytes, tuple[object, ...]]:
    """Event id -> (key, value, CloudEvents headers, partition) of every record of the topic."""
    found: dict[bytes, tuple[object, ...]] = {}
    for message in kafka.read_all(shop.broker, topic):
        headers = {name: value for name, value in kafka.headers(message).items() if value and _is_ours(name)}
        found[headers["ce_id"]] = (message.key(), message.value(), headers, message.partition())
    return found


def _is_ours(header: str) -> bool:
    return header.startswith("ce_") or header == "content-type"


def claim_setup(run: Run, state: dict[str, Any], tap: Tap, shops: tuple[Shop, ...]) -> None:
    tasks = [task["state"] for task in state.get("tasks", [])]
    run.claim(
        "Kafka Connect runs the Postgres connector in one task, on a slot and a publication of its own",
        tasks == ["RUNNING"] and not tap.rejected,
        topics=["I.5/debezium-setup/kafka-connect", "I.5/debezium-setup/database-connectors"],
        fact=f"connector {state.get('connector', {}).get('version')}, tasks {', '.join(tasks)}",
        variant=DEBEZIUM,
    )
    expected = {event.id: shop.topic for shop in shops for event in shop.events()}
    routed = {op.value: op.topic for op in History.read(shops[0].history).delivered}
    run.claim(
        "the EventRouter sends every event to the topic that its aggregate type names, and nowhere else",
        routed == expected,
        topics=["I.5/debezium-setup/event-routing"],
        fact=f"{len(routed):,} events to {len(set(routed.values()))} topics",
        variant=DEBEZIUM,
    )


Messages = dict[str, dict[bytes, tuple[object, ...]]]


def claim_messages(run: Run, by_debezium: Messages, by_polling: Messages) -> None:
    total = sum(len(found) for found in by_debezium.values())
    run.claim(
        "its messages are those of the polling publisher: key, payload bytes, CloudEvents headers, partition",
        total > 0 and by_debezium == by_polling,
        topics=["I.5/debezium-setup/outbox-transformation"],
        fact=f"{total:,} messages equal",
        variant=DEBEZIUM,
    )


def compare_jsonb(run: Run, count: int) -> None:
    """WRONG: the payload in a jsonb column, as most examples have it. It is parsed and written anew."""
    shop = open_shop(run, "jsonb", count)
    create_jsonb_copy(shop.conninfo)
    text = "org.apache.kafka.connect.storage.StringConverter"
    with (
        debezium(run, "jsonb", "outbox_jsonb", value_converter=text),
        Tap("consumer", shop.broker, [shop.topic], recorder(run, shop)) as tap,
    ):
        write_backlog(shop)
        tap.wait_for(count)
    written = {event.id.encode(): event.payload() for event in shop.events()}
    came = {ident: content[1] for ident, content in messages(shop, shop.topic).items()}
    changed = sum(came.get(ident) != payload for ident, payload in written.items())
    run.claim(
        "jsonb: every payload arrives in other bytes than were written; a signature over them is void",
        changed == len(written) == len(came),
        topics=["I.5/debezium-setup/outbox-transformation"],
        fact=f"{changed:,} of {len(written):,} payloads changed",
        variant=JSONB,
        wrong_way=True,
    )


def compare_idle(run: Run, seconds: float) -> None:
    """Each relay on an empty outbox for a while; Postgres counts the scans of the table."""
    asked = {}
    for variant in (POLLING, DEBEZIUM):
        shop = open_shop(run, f"idle_{variant[0].lower()}", 0)
        asked[variant] = idle(run, shop, variant, seconds)
        run.figure("questions to an empty outbox", asked[variant], "scans/s", variant=variant)
    run.claim(
        "Debezium asks nothing of the outbox table; the publisher asks at every interval, whether there is news or not",
        asked[DEBEZIUM] == 0 < asked[POLLING],
        topics=["I.5/change-data-capture/no-polling-overhead"],
        fact=f"{asked[POLLING]:.0f} scans/s against {asked[DEBEZIUM]:.0f}",
        variant=DEBEZIUM,
    )


def idle(run: Run, shop: Shop, variant: str, seconds: float) -> float:
    """Scans per second."""
    if variant == POLLING:
        ready = run.folder / "idle.ready"
        way = "publish, then mark", 500, POLL, None, "relay", True, ready
        asked, took = idle_scans(shop.conninfo, ready, seconds, lambda: run.worker("relay", relay, shop, *way))
        return asked / took
    before = scans(shop.conninfo)
    with debezium(run, "idle_d"):
        time.sleep(seconds)
    return (scans(shop.conninfo) - before) / seconds


def compare_latency(run: Run, count: int) -> None:
    """From the acknowledged commit to the consumer's hands, at a steady rate that none of the relays minds."""
    latency, asked, missing = {}, 0, 0
    for variant in (POLLING, DEBEZIUM):
        shop = replace(open_shop(run, f"latency_{variant[0].lower()}", count), rate=RATE)
        before, history = scans(shop.conninfo), paced(run, shop, variant)
        latency[variant] = run.figure("commit to consumer", waits(history), "ms", variant=variant)
        asked, missing = scans(shop.conninfo) - before, len(lost(history))
    topics = ["I.5/change-data-capture/lower-latency", "I.5/change-data-capture/database-log-monitoring"]
    if run.scale is Scale.SMOKE:  # too few, and too short, to compare times
        run.claim(
            "Debezium's events wait for no question to the table: all arrive, and at most the service has looked, once",
            asked <= BEGINS and not missing,
            topics=topics,
            fact=f"{count} events, {missing} lost, {asked} scans of the table",
            variant=DEBEZIUM,
        )
        return
    run.claim(
        f"Debezium's events arrive sooner than those of a publisher that polls every {POLL * 1000:.0f} ms",
        latency[DEBEZIUM].value < latency[POLLING].value,
        topics=topics,
        fact=f"p50 {latency[DEBEZIUM].value:.1f} ms against {latency[POLLING].value:.1f} ms",
        variant=DEBEZIUM,
    )


def paced(run: Run, shop: Shop, variant: str) -> History:
    with Tap("consumer", shop.broker, [shop.topic], recorder(run, shop)) as tap, ExitStack() as relays:
        if variant == DEBEZIUM:
            relays.enter_context(debezium(run, "latency_d"))
        else:
            relays.enter_context(run.worker("relay", relay, shop, "publish, then mark", 500, POLL))
        run.worker("service", serve, shop, "outbox").wait(120)
        tap.wait_for(shop.count)
    return run.judge(shop.history.stem, variant=variant)


def kill_connect(run: Run, count: int) -> None:
    shop = replace(open_shop(run, "kill", count), rate=2 * RATE)
    record = recorder(run, shop)
    with debezium(run, "kill") as connector, Tap("consumer", shop.broker, [shop.topic], record) as tap:
        run.cleanup(
            connector.delete
        )  # once more, when Connect is up again: interrupted while it is down, it has it still
        connect = run.control("connect")
        service = run.worker("service", serve, shop, "outbox")
        tap.wait_for(count // 2)
        with Faults(record).down(connect):
            done = now()
        service.wait(120)
        connector.wait_until_running()
        tap.wait_for(count)
        tap.catch_up()
    settle(shop, record)
    history = run.judge("kill", variant=DEBEZIUM, fault="SIGKILL, restart")
    twice, gap = duplicate_delivery(history), recovery(history, done)
    run.figure("events again, 1 s of offsets not flushed", len(twice), "events", variant=DEBEZIUM)
    if gap is not None:
        run.figure("first new event after kill -9 of Connect", gap, "s", variant=DEBEZIUM)
    run.claim(
        "Connect killed by -9 under load and started again: nothing is lost, some events come twice",
        not lost(history) + phantom(history) + aborted_read(history) and len(history.committed) == count,
        topics=["I.5/change-data-capture/debezium"],
        fact=f"0 of {count:,} lost, {len(twice)} twice, {again_after(gap)}",
        variant=DEBEZIUM,
    )


if __name__ == "__main__":
    experiment.main()
