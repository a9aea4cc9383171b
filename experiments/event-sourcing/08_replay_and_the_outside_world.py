"""Events are replayed, and handled again after a crash: what becomes of the e-mails?

A real HTTP server on the other side counts every mail that comes and every one that it sends on. Four senders confirm
the same orders, each is killed once, and then everything is replayed. What differs is who sends, and when: in
`SendWhileHandling.handle`, in `NoteFirst._do` before it is noted as sent, in `Gateway._do` after.
"""

from dataclasses import dataclass
from pathlib import Path

from sourcing.audit import everything
from sourcing.gateway import Gateway, open_gateway
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projection, install
from sourcing.shop.mails import Confirmations
from sourcing.stage import filling as shop
from sourcing.stage.projecting import SENDERS, Sender, send_mails
from sourcing.stage.receiver import receiver
from sourcing.windows import EffectWindow, ProjectionWindow
from sourcing.wrong.effects import NoteFirst, SendWhileHandling, SilentReplay
from sourcing.wrong.emptied import start_again

from shared.checkers import duplicate_delivery, duplicate_effect
from shared.experiment import Experiment, Run
from shared.faults import Kill
from shared.history import Action, History, Outcome
from shared.postgres import Connection, connect

TOPIC = "I.2/challenges/external-system-integration"
experiment = Experiment(
    title="Replay and the outside world",
    servers=("postgres",),
    topics=(TOPIC,),
)
KILLED: dict[Sender, ProjectionWindow | EffectWindow] = {
    SendWhileHandling: ProjectionWindow.BETWEEN,  # its mails are sent, the checkpoint is not written
    SilentReplay: ProjectionWindow.BETWEEN,
    NoteFirst: EffectWindow.BETWEEN,
    Gateway: EffectWindow.BETWEEN,
}


@experiment.run
def main(run: Run) -> None:
    orders = run.pick(smoke=30, demo=300, full=3_000)
    run.parameters.update({"orders": orders, "orders before there was a sender": orders // 3})
    found = {}
    for way in KILLED:
        with run.step(f"mails {SENDERS[way]}: kill -9, then a replay"):
            found[way] = confirm(run, way, orders)
    claim_wrong(run, found)
    claim_gateway(run, found[Gateway])


@dataclass(frozen=True)
class Mails:
    """What the receiver saw of one sender."""

    orders: int  # that are due a mail
    crash: int  # mails sent on again after the sender was killed and started again
    replay: int  # mails sent on again during the replay
    never: int  # orders that are due one and got none
    early: int  # mails about orders from before there was a sender
    known: int  # mails that came again and were not sent on, since the receiver knew their key


def confirm(run: Run, way: Sender, orders: int) -> Mails:
    """Confirm the orders, killed in the midst of it and started again; then replay all events."""
    about = run.about(SENDERS[way], wrong_way=way is not Gateway)
    name = SENDERS[way].replace(", ", "-").replace(" ", "-")
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
    history = about.judge(name, fault=f"SIGKILL {KILLED[way]}")
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
        about.figure("mails sent again", value, "mails", x=x, x_label="after")
    about.figure("mails never sent", mails.never, "mails")
    return mails


def note_due(run: Run, connection: Connection, name: str) -> None:
    """The new orders are due a mail each: a write in the history."""
    recorder = run.recorder(name, "shop")
    for event in everything(PostgresStore(connection)):
        if event.type == "OrderPlaced" and event.stream.startswith("order-new"):
            recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.stream)


def projection(way: Sender) -> Projection:
    """Whose checkpoint a replay sets back."""
    return Confirmations() if issubclass(way, Gateway) else SendWhileHandling(print)


def sent(file: Path) -> list[str]:
    """The events that mails were sent on for, so far."""
    return [op.value for op in History.read(file).of(Action.EFFECT, Outcome.OK)]


def claim_wrong(run: Run, found: dict[Sender, Mails]) -> None:
    naive, flag, noted = found[SendWhileHandling], found[SilentReplay], found[NoteFirst]
    run.about(SENDERS[SendWhileHandling], wrong_way=True, topics=[TOPIC]).claim(
        "mails sent while events are handled: a replay sends every one of them again, counted by the receiver",
        naive.replay == naive.orders + naive.early > naive.orders,
        fact=f"{naive.replay} mails again for {naive.orders} orders, {naive.early} about orders of long ago",
    )
    run.about(SENDERS[SilentReplay], wrong_way=True, topics=[TOPIC]).claim(
        "a flag keeps a replay silent; but a crash is no replay, and the batch in hand is mailed again",
        flag.replay == 0 and flag.crash > 0,
        fact=f"{flag.replay} mails again after the replay, {flag.crash} after one kill",
    )
    run.about(SENDERS[NoteFirst], wrong_way=True, topics=[TOPIC]).claim(
        "noted as sent, then sent: killed in between, the mail is never sent, and nothing shows it",
        noted.never == 1 and noted.crash == noted.replay == 0,
        fact=f"{noted.never} of {noted.orders} orders without a mail, noted as sent",
    )


def claim_gateway(run: Run, mails: Mails) -> None:
    gateway = run.about(SENDERS[Gateway], topics=[TOPIC])
    gateway.claim(
        "gateway, killed between sending and noting: the mail comes to the receiver twice, and is sent on once",
        mails.known == 1 and (mails.crash, mails.never) == (0, 0),
        fact=f"{mails.known} mail came again under its key; {mails.crash} sent on again, {mails.never} never sent",
    )
    gateway.claim(
        "gateway: a replay of all events sends nothing, and nobody hears of orders from before it was opened",
        mails.replay == mails.early == 0 < mails.orders,
        fact=f"{mails.replay} mails sent again, {mails.early} too early",
    )


if __name__ == "__main__":
    experiment.main()
