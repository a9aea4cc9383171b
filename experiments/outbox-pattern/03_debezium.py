"""Debezium reads the outbox from the database's log: does it publish the same events, how fast, and what if it dies?

The same service and the same outbox as before. The EventRouter is compared with the polling publisher byte for byte,
by what each asks of the database, by latency, and with Connect killed by -9 under load.

Right and wrong differ in the type of one column: `bytea` in schema.sql, `jsonb` in JSONB_COPY (wrong/jsonb.py). Both
relays are right: PollingPublisher.step (relay/polling.py) and the settings in Connector.config (relay/debezium.py).
"""

from dataclasses import replace
from typing import Any

from outbox.service import write_with_outbox
from outbox.stage import connectors, measures
from outbox.stage.shop import Shop, serve, watched
from outbox.wrong.jsonb import create_jsonb_copy

from shared import checkers, kafka
from shared.about import About
from shared.experiment import Experiment, Run, Scale
from shared.faults import Faults
from shared.history import History, now
from shared.tap import Tap

LOG, LATENCY = "I.5/change-data-capture/database-log-monitoring", "I.5/change-data-capture/lower-latency"
CAPTURE, OVERHEAD = "I.5/change-data-capture/debezium", "I.5/change-data-capture/no-polling-overhead"
CONNECT, CONNECTOR = "I.5/debezium-setup/kafka-connect", "I.5/debezium-setup/database-connectors"
TRANSFORMATION, ROUTING = "I.5/debezium-setup/outbox-transformation", "I.5/debezium-setup/event-routing"
experiment = Experiment(
    title="Debezium with the EventRouter",
    servers=("postgres", "kafka", "connect"),
    topics=(LOG, CAPTURE, OVERHEAD, LATENCY, CONNECT, CONNECTOR, TRANSFORMATION, ROUTING),
)
RATE = 100.0  # events per second, for latency
BEGINS = 1  # scans by a session that writes: where the outbox is at home (shared/home.sql)
TEXT = {"value.converter": "org.apache.kafka.connect.storage.StringConverter"}
ByTopic = dict[str, connectors.Messages]


@experiment.run
def main(run: Run) -> None:
    count, idle_for = run.pick(smoke=100, demo=500, full=2_000), run.pick(smoke=0.5, demo=2.0, full=2.0)
    run.parameters.update({"events per case": count, "poll interval ms": connectors.POLL * 1000, "rate per s": RATE})
    debezium, polling = run.about("Debezium"), run.about("polling publisher")
    with run.step("route two kinds of aggregates, and compare with the polling publisher"):
        compare_messages(debezium, count)
    with run.step("the payload in a jsonb column"):
        compare_jsonb(run.about("Debezium, payload in jsonb", wrong_way=True, topics=[TRANSFORMATION]), count)
    with run.step("an empty outbox: what does the relay ask of the table?"):
        compare_idle(debezium, polling, idle_for)
    with run.step(f"latency at {RATE:.0f} events a second"):
        compare_latency(debezium, polling, count)
    if run.possible("connect", "kill -9 Kafka Connect under load"):
        with run.step("kill -9 Kafka Connect under load"):
            kill_connect(debezium, max(count, 200))


def compare_messages(debezium: About, count: int) -> None:
    """Orders and payments through one outbox: once by Debezium, and the same rows by the polling publisher."""
    run = debezium.run
    orders = Shop.open(run, "orders", count)
    payments = replace(orders, topic=run.topic("payments"), seed=run.seed + 1, prefix="payment")
    topics = [orders.topic, payments.topic]
    with connectors.debezium(run, orders) as connector, watched(run, orders, *topics) as tap:
        orders.write_backlog()
        payments.write_backlog()
        tap.wait_for(2 * count)
        state = connector.status()
    twin = f"{run.name}.twin."
    kafka.create_topics(orders.broker, [twin + topic for topic in topics])
    connectors.drain(orders, twin)
    by_debezium, by_polling = ({t: connectors.messages(orders, prefix + t) for t in topics} for prefix in ("", twin))
    claim_setup(debezium, state, tap)
    claim_messages(debezium, orders, payments, by_debezium, by_polling)


def claim_setup(debezium: About, state: dict[str, Any], tap: Tap) -> None:
    tasks = [task["state"] for task in state.get("tasks", [])]
    debezium.claim(
        "Kafka Connect runs the Postgres connector in one task, on a slot and a publication of its own",
        tasks == ["RUNNING"] and not tap.rejected,
        topics=[CONNECT, CONNECTOR],
        fact=f"connector {state.get('connector', {}).get('version')}, tasks {', '.join(tasks)}",
    )


def claim_messages(debezium: About, orders: Shop, payments: Shop, by_debezium: ByTopic, by_polling: ByTopic) -> None:
    expected = {event.id: shop.topic for shop in (orders, payments) for event in shop.events()}
    routed = {op.value: op.topic for op in History.read(orders.history).delivered}
    debezium.claim(
        "the EventRouter sends every event to the topic that its aggregate type names, and nowhere else",
        routed == expected,
        topics=[ROUTING],
        fact=f"{len(routed):,} events to {len(set(routed.values()))} topics",
    )
    total = sum(map(len, by_debezium.values()))
    debezium.claim(
        "its messages are those of the polling publisher: key, payload bytes, CloudEvents headers, partition",
        total > 0 and by_debezium == by_polling,
        topics=[TRANSFORMATION],
        fact=f"{total:,} messages equal",
    )


def compare_jsonb(about: About, count: int) -> None:
    """WRONG: the payload in a jsonb column, as most examples have it. It is parsed and written anew."""
    shop = Shop.open(about.run, "jsonb", count)
    create_jsonb_copy(shop.conninfo)
    with connectors.debezium(about.run, shop, "outbox_jsonb", TEXT), watched(about.run, shop) as tap:
        shop.write_backlog()
        tap.wait_for(count)
    written, came = {event.id.encode(): event.payload() for event in shop.events()}, shop.published()
    changed = sum(came.get(ident) != payload for ident, payload in written.items())
    about.claim(
        "jsonb: every payload arrives in other bytes than were written; a signature over them is void",
        changed == len(written) == len(came),
        fact=f"{changed:,} of {len(written):,} payloads changed",
    )


def compare_idle(debezium: About, polling: About, seconds: float) -> None:
    """Each relay on an empty outbox for a while; Postgres counts the scans of the table."""
    run, unit = debezium.run, "scans/s"
    asking = connectors.scans_by_polling(run, Shop.open(run, "idle_p", 0), seconds)
    silent = connectors.scans_by_debezium(run, Shop.open(run, "idle_d", 0), seconds)
    polling.figure("questions to an empty outbox", asking, unit)
    debezium.figure("questions to an empty outbox", silent, unit)
    debezium.claim(
        "Debezium asks nothing of the outbox table; the publisher asks at every interval, whether there is news or not",
        silent == 0 < asking,
        topics=[OVERHEAD],
        fact=f"{asking:.0f} scans/s against {silent:.0f}",
    )


def compare_latency(debezium: About, polling: About, count: int) -> None:
    """From the acknowledged commit to the consumer's hands, at a steady rate that none of the relays minds."""
    run, p50 = debezium.run, dict[str, float]()
    for about, relaying in ((polling, connectors.polling), (debezium, connectors.debezium)):
        shop = Shop.open(run, f"latency_{about.variant[0].lower()}", count, rate=RATE)
        before = measures.scans(shop.conninfo)
        connectors.paced(run, shop, relaying)
        history = about.judge(shop.history.stem)
        p50[about.variant] = about.figure("commit to consumer", measures.waits(history), "ms").value
        asked, missing = measures.scans(shop.conninfo) - before, len(checkers.lost(history))
    if run.scale is Scale.SMOKE:  # too few, and too short, to compare times
        debezium.claim(
            "Debezium's events wait for no question to the table: all arrive, and at most the service has looked, once",
            asked <= BEGINS and not missing,
            topics=[LATENCY, LOG],
            fact=f"{count} events, {missing} lost, {asked} scans of the table",
        )
        return
    debezium.claim(
        f"Debezium's events arrive sooner than those of a publisher that polls every {connectors.POLL * 1000:.0f} ms",
        p50[debezium.variant] < p50[polling.variant],
        topics=[LATENCY, LOG],
        fact=f"p50 {p50[debezium.variant]:.1f} ms against {p50[polling.variant]:.1f} ms",
    )


def kill_connect(about: About, count: int) -> None:
    run = about.run
    shop = Shop.open(run, "kill", count, rate=2 * RATE)
    with connectors.debezium(run, shop) as connector, watched(run, shop) as tap:
        run.cleanup(connector.delete)  # once more: of a run that ends while Connect is down, Connect has it still
        connect, service = run.control("connect"), run.worker("service", serve, shop, write_with_outbox)
        tap.wait_for(count // 2)
        with Faults(tap.recorder).down(connect):
            done = now()
        service.wait(120)
        connector.wait_until_running()
        tap.wait_for(count)
    shop.settle(tap.recorder)
    history = about.judge("kill", "SIGKILL, restart")
    twice, gap = checkers.duplicate_delivery(history), measures.recovery(history, done)
    about.figure("events again, 1 s of offsets not flushed", len(twice), "events")
    if gap is not None:
        about.figure("first new event after kill -9 of Connect", gap, "s")
    about.claim(
        "Connect killed by -9 under load and started again: nothing is lost, some events come twice",
        not checkers.lost(history) + checkers.phantom(history) + checkers.aborted_read(history)
        and len(history.committed) == count,
        topics=[CAPTURE],
        fact=f"0 of {count:,} lost, {len(twice)} twice, {measures.again_after(gap)}",
    )


if __name__ == "__main__":
    experiment.main()
