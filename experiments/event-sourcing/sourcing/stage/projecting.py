"""What worker processes run: projectors and senders that are killed, writers and readers beside them."""

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx

from shared.faults import Kill, hook
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import connect
from shared.worker import until_told
from sourcing.event import Recorded
from sourcing.gateway import Gateway
from sourcing.postgres import PostgresStore
from sourcing.projection import Projector
from sourcing.rebuild import rebuild
from sourcing.shop.mails import Confirmations
from sourcing.shop.read_models import PROJECTIONS
from sourcing.stage import filling as shop
from sourcing.stage.receiver import post_mail
from sourcing.windows import ProjectionWindow
from sourcing.wrong.effects import NoteFirst, SendWhileHandling, SilentReplay
from sourcing.wrong.projectors import CheckpointFirst, ModelFirst

NAMES: dict[type[Projector], str] = {
    Projector: "one transaction",
    CheckpointFirst: "checkpoint first",
    ModelFirst: "model first",
}
# Where the model of the batch in hand is safe on the disk.
SAFE = {
    Projector: ProjectionWindow.AFTER_COMMIT,
    CheckpointFirst: ProjectionWindow.AFTER_BOTH,
    ModelFirst: ProjectionWindow.BETWEEN,
}
Sender = type[SendWhileHandling] | type[Gateway]
SENDERS: dict[Sender, str] = {
    SendWhileHandling: "sent while handling",
    SilentReplay: "silent while replaying",
    NoteFirst: "noted, then sent",
    Gateway: "gateway",
}


def project(
    conninfo: str, projection: str, way: type[Projector], batch: int, history: Path, kill: Kill | None = None
) -> None:
    """A process: take in all that there is, and end; each event a delivery when read and an effect when it is safe."""
    with Recorder(history, projection) as recorder, connect(conninfo) as connection:
        crash = hook(kill, recorder)

        def at(window: str) -> None:
            if window == ProjectionWindow.AFTER_READ:
                _record(recorder, Action.DELIVER, projector.events)
            if window == SAFE[way]:
                _record(recorder, Action.EFFECT, projector.events)
            crash(window)

        projector = way(connection, PROJECTIONS[projection], batch=batch, at=at)
        projector.catch_up()


def rebuild_killed(conninfo: str, projection: str, batch: int, history: Path, kill: Kill) -> None:
    """A process: rebuild, and die in the midst of it."""
    with Recorder(history, "rebuild") as recorder:
        rebuild(conninfo, PROJECTIONS[projection], batch=batch, at=hook(kill, recorder))


def follow(conninfo: str, projection: str, batch: int = 500) -> None:
    """A process: keep the read model up to date until SIGTERM, then take in what is left."""
    stop = until_told()
    with connect(conninfo) as connection:
        projector = Projector(connection, PROJECTIONS[projection], batch=batch)
        projector.run(stop)
        projector.catch_up()


def write_paced(conninfo: str, seed: int, rate: float, prefix: str) -> None:
    """A process: orders at a rate of so many each second, one event per transaction, until SIGTERM."""
    stop, began = until_told(), time.monotonic()
    with connect(conninfo) as connection:
        store = PostgresStore(connection)
        for number, (stream, events) in enumerate(shop.orders(seed, 1_000_000, prefix)):
            if stop.wait(max(0.0, began + number / rate - time.monotonic())):
                break
            for version, event in enumerate(events):
                store.append(stream, [event], version)


POLL = """
select coalesce(sum(changes), 0)::bigint, count(*), coalesce(max(tableoid::bigint), 0) from order_summary
"""


def watch(conninfo: str, result: Path) -> None:
    """A process: look at order_summary again and again until SIGTERM, as a reader who expects it to grow only.

    The file appears at the first look. At the end it holds {"polls", "tables": tables seen, "fell": polls that saw less
    than one before, "empty": those of them that saw nothing, "lowest": the least share of what was seen before}.
    """
    stop, most, polls, fell, empty, lowest = until_told(), 0, 0, 0, 0, 1.0
    tables: set[int] = set()
    with connect(conninfo) as connection:
        while True:
            last = stop.is_set()
            [(changes, rows, table)] = connection.execute(POLL, prepare=True).fetchall()
            polls += 1
            result.touch()
            if changes < most:
                fell, empty, lowest = fell + 1, empty + (rows == 0), min(lowest, changes / most)
            most = max(most, changes)
            tables |= {table} - {0}
            if last:
                break
            stop.wait(0.002)
    seen = {"polls": polls, "tables": len(tables), "fell": fell, "empty": empty, "lowest": lowest}
    result.write_text(json.dumps(seen))


def send_mails(
    conninfo: str, way: Sender, url: str, history: Path, batch: int, kill: Kill | None, replay: bool
) -> None:
    """A process: handle all the events there are, and see that the mails go out, in one of the ways; then end."""
    with Recorder(history, "sender") as recorder, connect(conninfo) as connection, httpx.Client() as client:
        at = hook(kill, recorder)
        post = partial(post_mail, client, url)
        if issubclass(way, SendWhileHandling):
            mailing = SilentReplay(post, replay) if way is SilentReplay else way(post)
            Projector(connection, mailing, batch=batch, at=at).catch_up()
            return
        Projector(connection, Confirmations(), batch=batch).catch_up()
        gateway = way(connection, post, at)
        while gateway.step():
            continue


def _record(recorder: Recorder, action: Action, events: Sequence[Recorded]) -> None:
    name, at = recorder.process, now()
    recorder.add(
        *(Op(at, name, action, Outcome.OK, event.id, event.stream, event.version, group=name) for event in events)
    )
