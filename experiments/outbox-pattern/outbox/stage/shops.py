"""A shop that is opened for one case of an experiment, and warmed up."""

from dataclasses import replace

from outbox.stage.processes import Shop, write_backlog
from outbox.table import create
from shared.run import Run
from shared.tap import Tap


def open_shop(run: Run, name: str, count: int, rate: float = 0.0, slot: str = "") -> Shop:
    """An empty outbox in a schema of its own; topic and history bear the name."""
    conninfo = run.schema(f"_{name.replace('-', '_')}")
    create(conninfo)
    topic, history = run.topic(name), run.history_file(name)
    return Shop(conninfo, run.endpoints["kafka"], topic, history, run.seed, count, rate=rate, slot=slot)


def watched(run: Run, shop: Shop, *topics: str) -> Tap:
    """The consumer of the shop's topic (or of these), to be entered. Its recorder is the experiment's own."""
    recorder = run.recorder(shop.history.stem, "experiment")
    return Tap("consumer", shop.broker, topics or (shop.topic,), recorder)


def warm_up(shop: Shop, tap: Tap, count: int) -> None:
    """The relay's first events cost it its connections: orders of another prefix, which are not measured."""
    write_backlog(replace(shop, count=count, seed=shop.seed + 1, prefix="warm"))
    tap.wait_for(count)
