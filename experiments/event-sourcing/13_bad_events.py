"""Events that a projection cannot handle, one for each way to be bad: what becomes of them, and of all the others?

Under `Policy.PARK` they are kept aside with what follows in their stream, under `Policy.STOP` the projector ends before
the first. Then the program is mended, and takes what is parked.
"""

from sourcing.projection import Policy, Projector
from sourcing.rebuild import rebuild
from sourcing.shop.read_models import OrderSummary
from sourcing.stage import badevents

from shared.experiment import Experiment, Run

READ_MODELS, REBUILDING = "I.2/projections/read-models-from-events", "I.2/projections/projection-rebuilding"
experiment = Experiment(
    title="Projections: events that cannot be handled",
    servers=("postgres",),
    topics=(READ_MODELS, REBUILDING),
)
SUMMARY = OrderSummary()


@experiment.run
def main(run: Run) -> None:
    with run.step("bad events among good ones"), badevents.open_log(run) as log:
        stopped, missed = badevents.stopped(log, Projector(log.connection, SUMMARY, policy=Policy.STOP))
        Projector(log.connection, SUMMARY, policy=Policy.PARK).catch_up()
        reasons, behind, wrong = badevents.parked(log)
        handled = Projector(log.connection, SUMMARY, read=badevents.mended).retry()
        left, rows = badevents.left(log), badevents.rows(log)
        rebuild(log.conninfo, SUMMARY, badevents.mended)
        differ = badevents.differ(rows, badevents.rows(log))
    parked = run.about("one transaction", topics=[READ_MODELS])
    parked.claim(
        "bad events are parked, each with its reason and with what follows in its stream; all other streams go on",
        all(badevents.REASONS[stream] in reasons.get(stream, "") for stream in badevents.BAD) and wrong == 0,
        fact=f"{len(reasons)} parked with {behind} behind them (msgspec#646); {wrong} other rows wrong",
    )
    parked.claim(
        "under the policy to stop, all events before the first bad one are taken, and the error names it",
        "order-unknown-type" in stopped and missed == 0,
        fact=stopped.partition(":")[0],
    )
    parked.claim(
        "once the program is mended, a retry handles what is parked, in order, and gives what a rebuild gives",
        handled == len(reasons) + behind and (left, differ) == (0, 0),
        topics=[REBUILDING],
        fact=f"{handled} handled, {left} left; {differ} rows differ from a rebuild",
    )


if __name__ == "__main__":
    experiment.main()
