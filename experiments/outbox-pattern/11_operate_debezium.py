"""Debezium is reconfigured, stopped and restarted while events flow: does it lose any, and what do its defaults cost?

One connector through its life: the default poll interval against 10 ms, a change of configuration under load, a stop
and resume with a backlog in between, the log that its slot keeps while only other tables are busy, and a table whose
name is no pattern.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from outbox.relay.debezium import Connector
from outbox.relay.wal import lag
from outbox.stage.measuring import waits
from outbox.stage.processes import Shop, serve, settle, write_backlog
from outbox.table import create

from shared import kafka, postgres
from shared.checkers import aborted_read, duplicate_delivery, lost, phantom
from shared.errors import DeadlineExceeded
from shared.experiment import Experiment, Run, Scale
from shared.history import History
from shared.tap import Tap
from shared.wait import until

experiment = Experiment(
    title="Debezium in operation",
    servers=("postgres", "kafka", "connect"),
    topics=(
        "I.5/debezium-setup/kafka-connect",
        "I.5/debezium-setup/database-connectors",
        "I.5/change-data-capture/lower-latency",
        "I.5/change-data-capture/database-log-monitoring",
    ),
)
RATE = 100.0  # events per second
DEFAULT, TUNED = "poll.interval.ms 500, the default", "poll.interval.ms 10"
AS_IT_IS, ESCAPED = "the name as it is", "the name as a pattern"
BUSY = 40_000  # rows of another table, some 4 MB of log


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=100, demo=500, full=2_000)
    run.parameters.update({"events per case": count, "rate per s": RATE})
    compare_intervals(run, count)
    change_under_load(run, max(count, 200))
    keep_the_log_short(run)
    name_the_table(run, min(count, 500))


def compare_intervals(run: Run, count: int) -> None:
    latency, missing = {}, 0
    for variant, milliseconds in ((DEFAULT, "500"), (TUNED, "10")):
        with run.step(f"latency with {variant}"):
            shop = open_shop(run, f"poll_{milliseconds}", count)
            recorder = run.recorder(shop.history.stem, "experiment")
            with (
                connected(run, shop, **{"poll.interval.ms": milliseconds}),
                Tap("consumer", shop.broker, [shop.topic], recorder) as tap,
            ):
                run.worker("service", serve, shop, "outbox").wait(120)
                tap.wait_for(count)
            history = run.judge(shop.history.stem, variant=variant, wrong_way=variant == DEFAULT)
        wrong, missing = variant == DEFAULT, missing + len(lost(history))
        latency[variant] = run.figure("commit to consumer", waits(history), "ms", variant=variant, wrong_way=wrong)
    if run.scale is Scale.SMOKE:  # too few, and too short, to compare times
        run.claim(
            "the poll interval is a matter of time only: at the default and at 10 ms every event comes",
            missing == 0,
            topics=["I.5/change-data-capture/lower-latency"],
            fact=f"{missing} of {2 * count} events lost",
        )
        return
    run.claim(
        "the default poll interval is the delay of most events; 10 ms are not",
        latency[DEFAULT].value > 5 * latency[TUNED].value,
        topics=["I.5/change-data-capture/lower-latency"],
        fact=f"p50 {latency[DEFAULT].value:.0f} ms against {latency[TUNED].value:.0f} ms",
        variant=DEFAULT,
        wrong_way=True,
    )


def change_under_load(run: Run, count: int) -> None:
    """A changed setting restarts the task; stop and resume leave a backlog in the log. Events flow all the while."""
    shop = open_shop(run, "change", 2 * count)
    recorder = run.recorder("change", "experiment")
    with connected(run, shop) as connector, Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        service = run.worker("service", serve, shop, "outbox")
        with run.step("reconfigure under load: another batch size"):
            tap.wait_for(count // 2)
            replace(connector, settings={"max.batch.size": "512"}).put()
        with run.step("stop for a second, resume"):
            connector.stop()
            time.sleep(1)
            connector.resume()
        service.wait(120)
        tap.wait_for(2 * count)
        tap.catch_up()
        tasks = connector.status()["tasks"]
    settle(shop, recorder)
    history = run.judge("change", variant=TUNED)
    wrong = lost(history) + phantom(history) + aborted_read(history)
    run.claim(
        "reconfigured, stopped and resumed under load, it loses nothing",
        not wrong and len(history.committed) == 2 * count and [task["state"] for task in tasks] == ["RUNNING"],
        topics=["I.5/debezium-setup/kafka-connect", "I.5/debezium-setup/database-connectors"],
        fact=f"{len(history.committed):,} events, {len(duplicate_delivery(history))} twice",
        variant=TUNED,
    )


def keep_the_log_short(run: Run) -> None:
    """Only another table is busy. Without a heartbeat the slot stands still, and Postgres keeps the log from there."""
    kept = {}
    for variant, beat in (("no heartbeat", "0"), ("heartbeat 500 ms", "500")):
        with run.step(f"the outbox is idle, another table is busy: {variant}"):
            shop = open_shop(run, f"beat_{beat}", 1)
            with connected(run, shop, **_heartbeat(run, shop.history.stem, beat)) as connector:
                run.worker("service", serve, shop, "outbox").wait()
                kept[variant] = write_elsewhere(shop, connector, 3 if beat == "0" else 30)
        run.figure("log kept for the slot", kept[variant] / 1e6, "MB", variant=variant, wrong_way=beat == "0")
    run.claim(
        "without a heartbeat an idle outbox keeps the log of every other table; a heartbeat lets it go",
        kept["no heartbeat"] > 1_000_000 > kept["heartbeat 500 ms"],
        topics=["I.5/change-data-capture/database-log-monitoring"],
        fact=f"{kept['no heartbeat'] / 1e6:.1f} MB kept against {kept['heartbeat 500 ms'] / 1e6:.2f} MB",
    )


def write_elsewhere(shop: Shop, connector: Connector, seconds: float) -> int:
    """Bytes that the slot is behind after others have written, given so much time to catch up."""
    with postgres.connect(shop.conninfo) as connection:
        connection.execute("create table elsewhere as select i, md5(i::text) from generate_series(1, %s) i", [BUSY])
        try:
            until("the slot to catch up", lambda: lag(connection, connector.name) < 100_000, seconds)
        except DeadlineExceeded:
            return lag(connection, connector.name)
        return lag(connection, connector.name)


def _heartbeat(run: Run, name: str, milliseconds: str) -> dict[str, str]:
    """A heartbeat that writes into the log: Debezium confirms a position when it has seen an event behind it.

    A logical message needs no table. The heartbeat's own records are no payload of bytes, and under ByteArrayConverter
    alone the first of them kills the task: they get JSON.
    """
    if milliseconds == "0":
        return {}
    return {
        "heartbeat.interval.ms": milliseconds,
        "heartbeat.action.query": "select pg_logical_emit_message(true, 'heartbeat', '')",
        "topic.heartbeat.prefix": f"{run.name}.{name}.heartbeat",
        "topic.creation.default.partitions": "1",
        "topic.creation.default.replication.factor": "1",
        "message.prefix.exclude.list": "heartbeat",
        "value.converter": "io.debezium.converters.BinaryDataConverter",
        "value.converter.delegate.converter.type": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.delegate.converter.type.schemas.enable": "false",
    }


def name_the_table(run: Run, count: int) -> None:
    """WRONG: a table's name as it is, where the setting takes patterns: `$` and `()` say something else there."""
    schema = f"{run.name}_a$b(c)"
    create(conninfo := run.schema("_a$b(c)"))
    shop = Shop(conninfo, run.endpoints["kafka"], run.topic("named"), run.history_file("named"), run.seed, count)
    kafka.create_topics(shop.broker, [wrong_topic := f"{run.name}.as.it.is.{shop.topic}"])
    as_it_is = {"table.include.list": f"{schema}.outbox", "transforms.outbox.route.topic.replacement": wrong_topic}
    wrong, right = (
        Connector(run.endpoints["connect"], run.endpoints["postgres"], f"{run.name}_{name}", schema, settings=settings)
        for name, settings in (("as_it_is", as_it_is), ("escaped", None))
    )
    topics, recorder = [shop.topic, wrong_topic], run.recorder("named", "experiment")
    with run.step(f"{count} events of a schema named …_a$b(c)"), wrong.running(), right.running():
        with Tap("consumer", shop.broker, topics, recorder) as tap:
            write_backlog(shop)
            tap.wait_for(count)
        states = [task["state"] for task in wrong.status().get("tasks", [])]
    came = Counter(op.topic for op in History.read(shop.history).delivered)
    run.claim(
        "a table's name as it is in the list of tables, which are patterns: the connector runs, and no event comes",
        states == ["RUNNING"] and came[wrong_topic] == 0,
        topics=["I.5/debezium-setup/database-connectors"],
        fact=f"its task is {', '.join(states)}, {came[wrong_topic]} of {count} events",
        variant=AS_IT_IS,
        wrong_way=True,
        source="apache/flink-cdc#4479",
    )
    run.claim(
        "with every character of it escaped, all come (flink-cdc#4479)",
        came[shop.topic] == count,
        topics=["I.5/debezium-setup/database-connectors"],
        fact=f"{came[shop.topic]} of {count} events",
        variant=ESCAPED,
    )


def open_shop(run: Run, name: str, count: int) -> Shop:
    conninfo = run.schema(f"_{name}")
    create(conninfo)
    return Shop(conninfo, run.endpoints["kafka"], run.topic(name), run.history_file(name), run.seed, count, rate=RATE)


@contextmanager
def connected(run: Run, shop: Shop, **settings: str) -> Iterator[Connector]:
    """A connector on the shop's outbox, gone at the end of the block."""
    schema = f"{run.name}_{shop.history.stem}"
    connector = Connector(run.endpoints["connect"], run.endpoints["postgres"], schema, schema, settings=settings)
    with connector.running():
        yield connector


if __name__ == "__main__":
    experiment.main()
