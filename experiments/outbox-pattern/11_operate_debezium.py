"""Debezium is reconfigured, stopped and restarted while events flow: does it lose any, and what do its defaults cost?

One connector through its life: the default poll interval against 10 ms, a change of configuration under load, a stop
and resume with a backlog in between, the log that its slot keeps while only other tables are busy, and a table whose
name is no pattern.

Where wrong and right differ: in the settings that are given here over those of Connector.config (relay/debezium.py),
`poll.interval.ms`, the `heartbeat` of stage/connectors.py, and `table.include.list`, which `_pattern` escapes.
"""

import time
from collections import Counter
from dataclasses import replace

from outbox.relay.debezium import Connector
from outbox.service import write_with_outbox
from outbox.stage import connectors
from outbox.stage.measures import waits
from outbox.stage.shop import Shop, serve, watched

from shared import checkers, kafka
from shared.about import About
from shared.experiment import Experiment, Run, Scale
from shared.history import History

CONNECT, CONNECTOR = "I.5/debezium-setup/kafka-connect", "I.5/debezium-setup/database-connectors"
LATENCY, LOG = "I.5/change-data-capture/lower-latency", "I.5/change-data-capture/database-log-monitoring"
experiment = Experiment(
    title="Debezium in operation",
    servers=("postgres", "kafka", "connect"),
    topics=(CONNECT, CONNECTOR, LATENCY, LOG),
)
RATE = 100.0  # events per second


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=100, demo=500, full=2_000)
    run.parameters.update({"events per case": count, "rate per s": RATE})
    default, tuned = run.about("poll.interval.ms 500, the default", wrong_way=True), run.about("poll.interval.ms 10")
    compare_intervals(default, tuned, count)
    change_under_load(tuned, max(count, 200))
    keep_the_log_short(run.about("no heartbeat", wrong_way=True), run.about("heartbeat 500 ms"))
    name_the_table(
        run.about("the name as it is", wrong_way=True, topics=[CONNECTOR]),
        run.about("the name as a pattern", topics=[CONNECTOR]),
        min(count, 500),
    )


def compare_intervals(default: About, tuned: About, count: int) -> None:
    (slow, missed), (quick, also_missed) = pace(default, 500, count), pace(tuned, 10, count)
    if default.run.scale is Scale.SMOKE:  # too few, and too short, to compare times
        default.run.claim(
            "the poll interval is a matter of time only: at the default and at 10 ms every event comes",
            missed + also_missed == 0,
            topics=[LATENCY],
            fact=f"{missed + also_missed} of {2 * count} events lost",
        )
        return
    default.claim(
        "the default poll interval is the delay of most events; 10 ms are not",
        slow > 5 * quick,
        topics=[LATENCY],
        fact=f"p50 {slow:.0f} ms against {quick:.0f} ms",
    )


def pace(about: About, milliseconds: int, count: int) -> tuple[float, int]:
    """The median latency at a steady rate, and how many events are lost."""
    shop = Shop.open(about.run, f"poll_{milliseconds}", count, rate=RATE)
    settings = {"poll.interval.ms": str(milliseconds)}
    with about.run.step(f"latency with {about.variant}"):
        connectors.paced(about.run, shop, lambda run, shop: connectors.debezium(run, shop, settings=settings))
        history = about.judge(shop.history.stem)
    return about.figure("commit to consumer", waits(history), "ms").value, len(checkers.lost(history))


def change_under_load(about: About, count: int) -> None:
    """A changed setting restarts the task; stop and resume leave a backlog in the log. Events flow all the while."""
    run, shop = about.run, Shop.open(about.run, "change", 2 * count, rate=RATE)
    with connectors.debezium(run, shop) as connector, watched(run, shop) as tap:
        service = run.worker("service", serve, shop, write_with_outbox)
        with run.step("reconfigure under load: another batch size"):
            tap.wait_for(count // 2)
            replace(connector, settings={"max.batch.size": "512"}).put()
        with run.step("stop for a second, resume"):
            connector.stop()
            time.sleep(1)
            connector.resume()
        service.wait(120)
        tap.wait_for(2 * count)
        tasks = [task["state"] for task in connector.status()["tasks"]]
    shop.settle(tap.recorder)
    history = about.judge("change")
    wrong = checkers.lost(history) + checkers.phantom(history) + checkers.aborted_read(history)
    about.claim(
        "reconfigured, stopped and resumed under load, it loses nothing",
        not wrong and len(history.committed) == 2 * count and tasks == ["RUNNING"],
        topics=[CONNECT, CONNECTOR],
        fact=f"{len(history.committed):,} events, {len(checkers.duplicate_delivery(history))} twice",
    )


def keep_the_log_short(without: About, with_one: About) -> None:
    """Only another table is busy. Without a heartbeat the slot stands still, and Postgres keeps the log from there."""
    run, kept = without.run, list[int]()
    beat = connectors.heartbeat(f"{run.name}.heartbeat", 500)
    for about, settings, seconds in ((without, None, 3), (with_one, beat, 30)):
        with run.step(f"the outbox is idle, another table is busy: {about.variant}"):
            shop = Shop.open(run, f"beat_{len(kept)}", 1)
            with connectors.debezium(run, shop, settings=settings) as connector:
                run.worker("service", serve, shop, write_with_outbox).wait()
                kept.append(connectors.lag_after_others(shop, connector, seconds))
        about.figure("log kept for the slot", kept[-1] / 1e6, "MB")
    run.claim(
        "without a heartbeat an idle outbox keeps the log of every other table; a heartbeat lets it go",
        kept[0] > 1_000_000 > kept[1],
        topics=[LOG],
        fact=f"{kept[0] / 1e6:.1f} MB kept against {kept[1] / 1e6:.2f} MB",
    )


def name_the_table(as_it_is: About, escaped: About, count: int) -> None:
    """WRONG: a table's name as it is, where the setting takes patterns: `$` and `()` say something else there."""
    run, schema = as_it_is.run, f"{as_it_is.run.name}_a$b(c)"
    shop = Shop.open(run, "named", count, schema="_a$b(c)")
    kafka.create_topics(shop.broker, [wrong_topic := f"{run.name}.as.it.is.{shop.topic}"])
    unescaped = {"table.include.list": f"{schema}.outbox", "transforms.outbox.route.topic.replacement": wrong_topic}
    wrong, right = (
        Connector(run.endpoints["connect"], run.endpoints["postgres"], f"{run.name}_{name}", schema, settings=settings)
        for name, settings in (("as_it_is", unescaped), ("escaped", None))
    )
    with run.step(f"{count} events of a schema named …_a$b(c)"), wrong.running(), right.running():
        with watched(run, shop, shop.topic, wrong_topic) as tap:
            shop.write_backlog()
            tap.wait_for(count)
        states = [task["state"] for task in wrong.status().get("tasks", [])]
    came = Counter(op.topic for op in History.read(shop.history).delivered)
    as_it_is.claim(
        "a table's name as it is in the list of tables, which are patterns: the connector runs, and no event comes",
        states == ["RUNNING"] and came[wrong_topic] == 0,
        fact=f"its task is {', '.join(states)}, {came[wrong_topic]} of {count} events",
        source="apache/flink-cdc#4479",
    )
    escaped.claim(
        "with every character of it escaped, all come (flink-cdc#4479)",
        came[shop.topic] == count,
        fact=f"{came[shop.topic]} of {count} events",
    )


if __name__ == "__main__":
    experiment.main()
