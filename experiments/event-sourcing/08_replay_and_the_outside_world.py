"""Events are replayed, and handled again after a crash: what becomes of the e-mails?

A real HTTP server on the other side counts every mail that comes and every one that it sends on. Four senders confirm
the same orders, each is killed once, and then everything is replayed. What differs is who sends, and when: in
`SendWhileHandling.handle`, in `NoteFirst._do` before it is noted as sent, in `Gateway._do` after.
"""

from sourcing.gateway import Gateway
from sourcing.stage import outside
from sourcing.stage.outside import Mails, Sender
from sourcing.windows import EffectWindow, ProjectionWindow
from sourcing.wrong.effects import NoteFirst, SendWhileHandling, SilentReplay

from shared.experiment import Experiment, Run
from shared.faults import Kill

TOPIC = "I.2/challenges/external-system-integration"
experiment = Experiment(
    title="Replay and the outside world",
    servers=("postgres",),
    topics=(TOPIC,),
)
NAMES: dict[Sender, str] = {
    SendWhileHandling: "sent while handling",
    SilentReplay: "silent while replaying",
    NoteFirst: "noted, then sent",
    Gateway: "gateway",
}


@experiment.run
def main(run: Run) -> None:
    orders = run.pick(smoke=30, demo=300, full=3_000)
    run.parameters.update({"orders": orders, "orders before there was a sender": orders // 3})
    found = {}
    for way in (SendWhileHandling, SilentReplay, NoteFirst, Gateway):
        with run.step(f"mails {NAMES[way]}: kill -9, then a replay"):
            found[way] = confirm(run, way, orders)
    claim_wrong(run, found)
    claim_gateway(run, found[Gateway])


def confirm(run: Run, way: Sender, orders: int) -> Mails:
    """Confirm the orders, killed in the midst of it and started again; then replay all events.

    Who sends while handling is killed when mails are sent and the checkpoint is not written; who notes what is sent,
    between the two.
    """
    about = run.about(NAMES[way], wrong_way=way is not Gateway)
    window = EffectWindow.BETWEEN if issubclass(way, Gateway) else ProjectionWindow.BETWEEN
    with outside.office(run, NAMES[way].replace(", ", "-").replace(" ", "-"), orders) as office:
        office.send(way, Kill(window, nth=2))
        office.send(way)
        before = office.sent()
        office.replay(way)
        after = office.sent()
    mails = outside.mails(about.judge(office.name, fault=f"SIGKILL {window}"), before, after)
    for x, value in {"a crash": mails.crash, "a replay": mails.replay}.items():
        about.figure("mails sent again", value, "mails", x=x, x_label="after")
    about.figure("mails never sent", mails.never, "mails")
    return mails


def claim_wrong(run: Run, found: dict[Sender, Mails]) -> None:
    naive, flag, noted = found[SendWhileHandling], found[SilentReplay], found[NoteFirst]
    run.about(NAMES[SendWhileHandling], wrong_way=True, topics=[TOPIC]).claim(
        "mails sent while events are handled: a replay sends every one of them again, counted by the receiver",
        naive.replay == naive.orders + naive.early > naive.orders,
        fact=f"{naive.replay} mails again for {naive.orders} orders, {naive.early} about orders of long ago",
    )
    run.about(NAMES[SilentReplay], wrong_way=True, topics=[TOPIC]).claim(
        "a flag keeps a replay silent; but a crash is no replay, and the batch in hand is mailed again",
        flag.replay == 0 and flag.crash > 0,
        fact=f"{flag.replay} mails again after the replay, {flag.crash} after one kill",
    )
    run.about(NAMES[NoteFirst], wrong_way=True, topics=[TOPIC]).claim(
        "noted as sent, then sent: killed in between, the mail is never sent, and nothing shows it",
        noted.never == 1 and noted.crash == noted.replay == 0,
        fact=f"{noted.never} of {noted.orders} orders without a mail, noted as sent",
    )


def claim_gateway(run: Run, mails: Mails) -> None:
    gateway = run.about(NAMES[Gateway], topics=[TOPIC])
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
