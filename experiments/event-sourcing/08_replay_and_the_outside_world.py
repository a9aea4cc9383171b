"""Events are replayed, and handled again after a crash: what becomes of the e-mails, and of what others were asked?

A real HTTP server on the other side counts every mail that comes and every one that it sends on. Four senders confirm
the same orders, each is killed once, and then everything is replayed. Then prices rise between two replays.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from sourcing.audit import everything
from sourcing.gateway import open_gateway
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projection, Projector, install
from sourcing.rebuild import rebuild
from sourcing.shop.mails import Confirmations
from sourcing.shop.order_value import OrderValue
from sourcing.stage import filling as shop
from sourcing.stage.projecting import FLAG, KEYED, NAIVE, NOTED, Kill, send_mails
from sourcing.stage.receiver import ask_price, raise_prices, receive, url_of
from sourcing.windows import EffectWindow, ProjectionWindow
from sourcing.wrong.effects import AskedValue, SendWhileHandling
from sourcing.wrong.emptied import start_again

from shared.checkers import duplicate_delivery, duplicate_effect
from shared.experiment import Experiment, Run
from shared.history import Action, History, Outcome
from shared.postgres import Connection, connect
from shared.worker import Worker

experiment = Experiment(
    title="Replay and the outside world",
    servers=("postgres",),
    topics=("I.2/challenges/external-system-integration",),
)
TOPIC = "I.2/challenges/external-system-integration"
KILLED: dict[str, ProjectionWindow | EffectWindow] = {
    NAIVE: ProjectionWindow.BETWEEN,  # its mails are sent, the checkpoint is not written
    FLAG: ProjectionWindow.BETWEEN,
    NOTED: EffectWindow.BETWEEN,
    KEYED: EffectWindow.BETWEEN,
}
ASKED, RECORDED = "asked while handling", "recorded in the event"
RISE = 10  # percent


@experiment.run
def main(run: Run) -> None:
    orders = run.pick(smoke=30, demo=300, full=3_000)
    run.parameters.update({"orders": orders, "orders before there was a sender": orders // 3})
    found = {}
    for way in KILLED:
        with run.step(f"mails {way}: kill -9, then a replay"):
            found[way] = confirm(run, way, orders)
    claim_wrong(run, found)
    claim_gateway(run, found[KEYED])
    with run.step("prices rise between two replays"):
        compare_prices(run, run.pick(smoke=30, demo=200, full=1_000))


@dataclass(frozen=True)
class Mails:
    """What the receiver saw of one sender."""

    orders: int  # that are due a mail
    crash: int  # mails sent on again after the sender was killed and started again
    replay: int  # mails sent on again during the replay
    never: int  # orders that are due one and got none
    early: int  # mails about orders from before there was a sender
    known: int  # mails that came again and were not sent on, since the receiver knew their key


def confirm(run: Run, way: str, orders: int) -> Mails:
    """Confirm the orders, killed in the midst of it and started again; then replay all events."""
    name = way.replace(", ", "-").replace(" ", "-")
    conninfo, file, batch = run.schema(f"_{len(run.histories)}"), run.history_file(name), 2 * orders
    create(conninfo)
    with connect(conninfo) as connection, receiver(run, name) as (url, _):
        shop.write(connection, run.seed, orders // 3, "old")
        install(connection)
        open_gateway(connection)
        shop.write(connection, run.seed, orders, "new")
        note_due(run, connection, name)
        for kill in (Kill(KILLED[way], nth=2), None):
            run.worker("sender", send_mails, conninfo, way, url, file, batch, kill, False).wait()
        before = sent(file)
        start_again(connection, projection(way))
        run.worker("sender", send_mails, conninfo, way, url, file, batch, None, True).wait()
    history = run.judge(name, variant=way, wrong_way=way != KEYED, fault=f"SIGKILL {KILLED[way]}")
    after, due = sent(file), history.committed
    mails = Mails(
        orders=len(due),
        crash=len(before) - len(set(before)),
        replay=len(after) - len(before),
        never=len(due - set(after)),
        early=len(set(after) - due),
        known=len(duplicate_delivery(history)) - len(duplicate_effect(history)),
    )
    for x, value in {"a crash": mails.crash, "a replay": mails.replay}.items():
        run.figure("mails sent again", value, "mails", variant=way, wrong_way=way != KEYED, x=x, x_label="after")
    run.figure("mails never sent", mails.never, "mails", variant=way, wrong_way=way != KEYED)
    return mails


@contextmanager
def receiver(run: Run, name: str) -> Iterator[tuple[str, Worker]]:
    """The outside world: its URL, and its process."""
    url_file = run.folder / f"{name}.url"
    with run.worker("receiver", receive, run.history_file(name), url_file) as world:
        yield url_of(url_file), world


def note_due(run: Run, connection: Connection, name: str) -> None:
    """The new orders are due a mail each: a write in the history."""
    recorder = run.recorder(name, "shop")
    for event in everything(PostgresStore(connection)):
        if event.type == "OrderPlaced" and event.stream.startswith("order-new"):
            recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.stream)


def projection(way: str) -> Projection:
    """Whose checkpoint a replay sets back."""
    return Confirmations() if way in (NOTED, KEYED) else SendWhileHandling(print)


def sent(file: Path) -> list[str]:
    """The events that mails were sent on for, so far."""
    return [op.value for op in History.read(file).of(Action.EFFECT, Outcome.OK)]


def claim_wrong(run: Run, found: dict[str, Mails]) -> None:
    naive, flag, noted = found[NAIVE], found[FLAG], found[NOTED]
    run.claim(
        "mails sent while events are handled: a replay sends every one of them again, counted by the receiver",
        naive.replay == naive.orders + naive.early > naive.orders,
        topics=[TOPIC],
        fact=f"{naive.replay} mails again for {naive.orders} orders, {naive.early} about orders of long ago",
        variant=NAIVE,
        wrong_way=True,
    )
    run.claim(
        "a flag keeps a replay silent; but a crash is no replay, and the batch in hand is mailed again",
        flag.replay == 0 and flag.crash > 0,
        topics=[TOPIC],
        fact=f"{flag.replay} mails again after the replay, {flag.crash} after one kill",
        variant=FLAG,
        wrong_way=True,
    )
    run.claim(
        "noted as sent, then sent: killed in between, the mail is never sent, and nothing shows it",
        noted.never == 1 and noted.crash == noted.replay == 0,
        topics=[TOPIC],
        fact=f"{noted.never} of {noted.orders} orders without a mail, noted as sent",
        variant=NOTED,
        wrong_way=True,
    )


def claim_gateway(run: Run, mails: Mails) -> None:
    run.claim(
        "gateway, killed between sending and noting: the mail comes to the receiver twice, and is sent on once",
        mails.known == 1 and (mails.crash, mails.never) == (0, 0),
        topics=[TOPIC],
        fact=f"{mails.known} mail came again under its key; {mails.crash} sent on again, {mails.never} never sent",
        variant=KEYED,
    )
    run.claim(
        "gateway: a replay of all events sends nothing, and nobody hears of orders from before it was opened",
        mails.replay == mails.early == 0 < mails.orders,
        topics=[TOPIC],
        fact=f"{mails.replay} mails sent again, {mails.early} too early",
        variant=KEYED,
    )


def compare_prices(run: Run, orders: int) -> None:
    """Two read models of the same orders; prices rise; both are rebuilt, and rebuilt again with nobody to ask."""
    conninfo = run.schema("_prices")
    create(conninfo)
    with connect(conninfo) as connection, receiver(run, "prices") as (url, world), httpx.Client() as client:
        price = partial(ask_price, client, url)
        events = shop.write(connection, run.seed, orders, price=price)
        models: dict[str, Projection] = {ASKED: AskedValue(price), RECORDED: OrderValue()}
        install(connection, *models.values())
        for variant, model in models.items():
            began = time.perf_counter()
            Projector(connection, model).catch_up()
            rate = events / (time.perf_counter() - began)
            run.figure("events handled", rate, "events/s", variant=variant, wrong_way=variant == ASKED)
        before = {variant: values(connection, model) for variant, model in models.items()}
        raise_prices(client, url, RISE)
        for model in models.values():
            rebuild(conninfo, model)
        after = {variant: values(connection, model) for variant, model in models.items()}
        world.kill()
        alone = {variant: can_rebuild(conninfo, model) for variant, model in models.items()}
        last = values(connection, models[RECORDED])
    claim_prices(run, before, after, alone, last)


def values(connection: Connection, model: Projection) -> dict[str, int]:
    """Order -> cents."""
    return dict(connection.execute(f"select order_id, cents from {model.name}").fetchall())  # noqa: S608


def can_rebuild(conninfo: str, model: Projection) -> str:
    """Empty, or the error that ended the rebuild."""
    try:
        rebuild(conninfo, model)
    except httpx.TransportError as error:
        return type(error).__name__
    return ""


def claim_prices(
    run: Run,
    before: dict[str, dict[str, int]],
    after: dict[str, dict[str, int]],
    alone: dict[str, str],
    last: dict[str, int],
) -> None:
    changed = {v: sum(after[v][order] != cents for order, cents in before[v].items()) for v in before}
    totals = {variant: sum(found.values()) for variant, found in after.items()}
    for variant in before:
        rise = 100 * (totals[variant] / sum(before[variant].values()) - 1)
        run.figure("total after the replay", rise, "% off", variant=variant, wrong_way=variant == ASKED)
    run.claim(
        "prices asked for while handling: after a rise, a replay gives old orders values that they never had",
        before[ASKED] == before[RECORDED] and changed[ASKED] == len(before[ASKED]),
        topics=[TOPIC],
        fact=f"{changed[ASKED]} of {len(before[ASKED])} orders changed: {euros(sum(before[ASKED].values()))}"
        f" became {euros(totals[ASKED])}",
        variant=ASKED,
        wrong_way=True,
    )
    run.claim(
        "prices asked for while handling: with the price service gone there is no replay at all",
        alone[ASKED] != "" and alone[RECORDED] == "",
        topics=[TOPIC],
        fact=f"the rebuild ended with {alone[ASKED] or 'no error'}",
        variant=ASKED,
        wrong_way=True,
    )
    run.claim(
        "the answer recorded in the event by the command that asked: every replay gives the same, and asks nobody",
        before[RECORDED] == after[RECORDED] == last and len(last) > 0,
        topics=[TOPIC],
        fact=f"{changed[RECORDED]} of {len(last)} orders changed in two replays",
        variant=RECORDED,
    )


def euros(cents: int) -> str:
    return f"{cents / 100:,.2f} EUR"


if __name__ == "__main__":
    experiment.main()
