"""Debezium reads the outbox from the database's log: does it publish the same events, how fast, and what if it dies?

The same service and the same outbox as before. The EventRouter is compared with the polling publisher byte for byte,
by what each asks of the database, by latency, and with Connect killed by -9 under load.

Right and wrong differ in the type of one column: `bytea` in schema.sql, `jsonb` in JSONB_COPY (wrong/jsonb.py). Both
relays are right: PollingPublisher.step (relay/polling.py) and the settings in Connector.config (relay/debezium.py).
"""

from dataclasses import replace
from typing import Any

from outbox.stage import measuring, routing
from outbox.stage.processes import Shop, serve, settle, write_backlog
from outbox.stage.shops import open_shop, watched
from outbox.wrong.jsonb import create_jsonb_copy

from shared import checkers, kafka
from shared.experiment import Experiment, Run, Scale
from shared.faults import Faults
from shared.history import History, now
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
RATE = 100.0  # events per second, for latency
BEGINS = 1  # scans by a session that writes: where the outbox is at home (shared/home.sql)
Messages = dict[str, routing.Messages]  # by topic


@experiment.run
def main(run: Run) -> None:
    count, idle_for = run.pick(smoke=100, demo=500, full=2_000), run.pick(smoke=0.5, demo=2.0, full=2.0)
    run.parameters.update({"events per case": count, "poll interval ms": routing.POLL * 1000, "rate per s": RATE})
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


def compare_messages(run: Run, count: int) -> None:
    """Orders and payments through one outbox: once by Debezium, and the same rows by the polling publisher."""
    orders = open_shop(run, "orders", count)
    payments = replace(orders, topic=run.topic("payments"), seed=run.seed + 1, prefix="payment")
    shops = orders, payments
    topics = [shop.topic for shop in shops]
    with routing.debezium(run, "orders") as connector, watched(run, orders, *topics) as tap:
        for shop in shops:
            write_backlog(shop)
        tap.wait_for(2 * count)
        state = connector.status()
    twin = f"{run.name}.twin."
    kafka.create_topics(orders.broker, [twin + topic for topic in topics])
    routing.drain(orders, twin)
    by_debezium, by_polling = ({t: routing.messages(orders, prefix + t) for t in topics} for prefix in ("", twin))
    claim_setup(run, state, tap, shops)
    claim_messages(run, by_debezium, by_polling)


def claim_setup(run: Run, state: dict[str, Any], tap: Tap, shops: tuple[Shop, ...]) -> None:
    about = run.about(DEBEZIUM)
    tasks = [task["state"] for task in state.get("tasks", [])]
    about.claim(
        "Kafka Connect runs the Postgres connector in one task, on a slot and a publication of its own",
        tasks == ["RUNNING"] and not tap.rejected,
        topics=["I.5/debezium-setup/kafka-connect", "I.5/debezium-setup/database-connectors"],
        fact=f"connector {state.get('connector', {}).get('version')}, tasks {', '.join(tasks)}",
    )
    expected = {event.id: shop.topic for shop in shops for event in shop.events()}
    routed = {op.value: op.topic for op in History.read(shops[0].history).delivered}
    about.claim(
        "the EventRouter sends every event to the topic that its aggregate type names, and nowhere else",
        routed == expected,
        topics=["I.5/debezium-setup/event-routing"],
        fact=f"{len(routed):,} events to {len(set(routed.values()))} topics",
    )


def claim_messages(run: Run, by_debezium: Messages, by_polling: Messages) -> None:
    total = sum(len(found) for found in by_debezium.values())
    run.about(DEBEZIUM).claim(
        "its messages are those of the polling publisher: key, payload bytes, CloudEvents headers, partition",
        total > 0 and by_debezium == by_polling,
        topics=["I.5/debezium-setup/outbox-transformation"],
        fact=f"{total:,} messages equal",
    )


def compare_jsonb(run: Run, count: int) -> None:
    """WRONG: the payload in a jsonb column, as most examples have it. It is parsed and written anew."""
    shop = open_shop(run, "jsonb", count)
    create_jsonb_copy(shop.conninfo)
    text = "org.apache.kafka.connect.storage.StringConverter"
    with (
        routing.debezium(run, "jsonb", "outbox_jsonb", value_converter=text),
        watched(run, shop) as tap,
    ):
        write_backlog(shop)
        tap.wait_for(count)
    written = {event.id.encode(): event.payload() for event in shop.events()}
    came = {ident: content[1] for ident, content in routing.messages(shop, shop.topic).items()}
    changed = sum(came.get(ident) != payload for ident, payload in written.items())
    run.about(JSONB, wrong_way=True).claim(
        "jsonb: every payload arrives in other bytes than were written; a signature over them is void",
        changed == len(written) == len(came),
        topics=["I.5/debezium-setup/outbox-transformation"],
        fact=f"{changed:,} of {len(written):,} payloads changed",
    )


def compare_idle(run: Run, seconds: float) -> None:
    """Each relay on an empty outbox for a while; Postgres counts the scans of the table."""
    asked = {}
    for variant, measure in ((POLLING, routing.scans_by_polling), (DEBEZIUM, routing.scans_by_debezium)):
        asked[variant] = measure(run, open_shop(run, f"idle_{variant[0].lower()}", 0), seconds)
        run.about(variant).figure("questions to an empty outbox", asked[variant], "scans/s")
    run.about(DEBEZIUM).claim(
        "Debezium asks nothing of the outbox table; the publisher asks at every interval, whether there is news or not",
        asked[DEBEZIUM] == 0 < asked[POLLING],
        topics=["I.5/change-data-capture/no-polling-overhead"],
        fact=f"{asked[POLLING]:.0f} scans/s against {asked[DEBEZIUM]:.0f}",
    )


def compare_latency(run: Run, count: int) -> None:
    """From the acknowledged commit to the consumer's hands, at a steady rate that none of the relays minds."""
    latency, asked, missing = {}, 0, 0
    for variant in (POLLING, DEBEZIUM):
        shop = replace(open_shop(run, f"latency_{variant[0].lower()}", count), rate=RATE)
        before = measuring.scans(shop.conninfo)
        routing.paced(run, shop, by_debezium=variant == DEBEZIUM)
        history = run.about(variant).judge(shop.history.stem)
        latency[variant] = run.about(variant).figure("commit to consumer", measuring.waits(history), "ms")
        asked, missing = measuring.scans(shop.conninfo) - before, len(checkers.lost(history))
    topics = ["I.5/change-data-capture/lower-latency", "I.5/change-data-capture/database-log-monitoring"]
    if run.scale is Scale.SMOKE:  # too few, and too short, to compare times
        run.about(DEBEZIUM).claim(
            "Debezium's events wait for no question to the table: all arrive, and at most the service has looked, once",
            asked <= BEGINS and not missing,
            topics=topics,
            fact=f"{count} events, {missing} lost, {asked} scans of the table",
        )
        return
    run.about(DEBEZIUM).claim(
        f"Debezium's events arrive sooner than those of a publisher that polls every {routing.POLL * 1000:.0f} ms",
        latency[DEBEZIUM].value < latency[POLLING].value,
        topics=topics,
        fact=f"p50 {latency[DEBEZIUM].value:.1f} ms against {latency[POLLING].value:.1f} ms",
    )


def kill_connect(run: Run, count: int) -> None:
    shop = replace(open_shop(run, "kill", count), rate=2 * RATE)
    with routing.debezium(run, "kill") as connector, watched(run, shop) as tap:
        run.cleanup(connector.delete)  # once more: of a run that ends while Connect is down, Connect has it still
        connect = run.control("connect")
        service = run.worker("service", serve, shop, "outbox")
        tap.wait_for(count // 2)
        with Faults(tap.recorder).down(connect):
            done = now()
        service.wait(120)
        connector.wait_until_running()
        tap.wait_for(count)
        tap.catch_up()
    settle(shop, tap.recorder)
    about = run.about(DEBEZIUM)
    history = about.judge("kill", "SIGKILL, restart")
    twice, gap = checkers.duplicate_delivery(history), measuring.recovery(history, done)
    about.figure("events again, 1 s of offsets not flushed", len(twice), "events")
    if gap is not None:
        about.figure("first new event after kill -9 of Connect", gap, "s")
    about.claim(
        "Connect killed by -9 under load and started again: nothing is lost, some events come twice",
        not checkers.lost(history) + checkers.phantom(history) + checkers.aborted_read(history)
        and len(history.committed) == count,
        topics=["I.5/change-data-capture/debezium"],
        fact=f"0 of {count:,} lost, {len(twice)} twice, {measuring.again_after(gap)}",
    )


if __name__ == "__main__":
    experiment.main()
