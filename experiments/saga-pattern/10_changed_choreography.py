"""The choreography is changed: what has to change with it, and who notices what was forgotten?

A fraud check is added to the choreography, once with and once without a change to payments, and to the orchestrator,
where one definition has the flow. Then two services get one new reaction each; each is sensible by itself, and together
they loop for ever. The ways differ in state machines: FORGOTTEN beside WITH_FRAUD, and LOOPING (all in
saga/stage/changes.py) beside MACHINES (saga/choreography/machine.py).
"""

from saga.choreography.flow import Wrong, declared, problems, recorded
from saga.choreography.machine import MACHINES
from saga.services.invariant import judge
from saga.stage import changes, plays
from saga.stage.changes import FORGOTTEN, LOOPING, WITH_FRAUD

from shared.experiment import Experiment, Run

HARD = "I.4/choreography-challenges"
experiment = Experiment(
    title="Choreography: what a change takes",
    servers=("postgres", "kafka"),
    topics=(
        "I.4/choreography-challenges/adding-steps-requires-multiple-changes",
        "I.4/choreography-challenges/cyclic-dependencies-risk",
        "I.4/choreography-challenges/testing-complexity",
    ),
)


@experiment.run
def main(run: Run) -> None:
    with run.step("a fraud check comes in, and payments is told, or not"):
        play_fraud(run)
    with run.step("stock asks once more, and payments answers"):
        play_cycle(run)


def play_fraud(run: Run) -> None:
    count = run.pick(smoke=8, demo=20, full=100)
    claim_fraud(run, count)
    todo = plays.suspects(count, plays.WORLD)
    suspects = {order.id for order in todo if changes.suspect(order)}
    stage = plays.open_stage(run, "fraud-not-told", FORGOTTEN)
    orphans = recorded(plays.play(stage, todo, run.worker)).orphans()
    half, kept = judge(stage.shop).inconsistent, plays.held(stage)
    run.claim(
        "one of these changes forgotten: suspects have paid and are never refunded, and no service sees an error",
        half == suspects and not kept and orphans == {"fraud.suspected"},
        topics=[f"{HARD}/adding-steps-requires-multiple-changes"],
        fact=f"{len(half)} orders half done, {len(kept)} events kept; the recorded flow shows that nobody hears"
        f" {', '.join(orphans)}",
        variant="a change forgotten",
        wrong_way=True,
    )


def claim_fraud(run: Run, count: int) -> None:
    """The same orders, with payments and shipping told, and by a new version of a definition."""
    right, todo = run.about(plays.RIGHT), plays.suspects(count, plays.WORLD)
    suspects = {order.id for order in todo if changes.suspect(order)}
    stage = plays.open_stage(run, "fraud-told", WITH_FRAUD)
    plays.play(stage, todo, run.worker)
    plays.note_flow(run, declared(WITH_FRAUD), "with a fraud check")
    heard, ours, (asked, played) = judge(stage.shop), changes.told(), changes.play_defined(run, todo)
    theirs = played.change
    changes.note_changes(run, {"choreography": ours, "one definition": theirs})
    undone = [standing.compensated for standing in (heard, asked)]
    unchecked, checked = played.undone
    right.claim(
        "beside the new service, a fraud check changes two that were there; with one definition, it changes none of"
        " them, only the definition and the list of commands",
        len(ours.services) == 2
        and not theirs.services
        and len(theirs.others) == 2
        and ours.new == theirs.new
        and undone == [suspects, suspects | unchecked]
        and checked == suspects
        and len(unchecked) == 1
        and not heard.violations + asked.violations,
        topics=[f"{HARD}/adding-steps-requires-multiple-changes"],
        fact=f"new: {', '.join(ours.new)}; changed: {', '.join(ours.services + ours.others)}; with one definition:"
        f" {', '.join(theirs.services + theirs.others)}; {len(undone[0])} suspects undone, and"
        f" {len(undone[1] - unchecked)} of {len(todo)} by the orchestrator, whose four services run on as they were",
    )


def play_cycle(run: Run) -> None:
    cycle = run.about("a cycle", wrong_way=True)
    right = run.about(plays.RIGHT)
    order, another, fates = plays.unpayable(run)
    stage = plays.open_stage(run, "cycle", LOOPING, fates)
    events = plays.run_away(stage, order, run.worker, run.pick(smoke=100, demo=500, full=1_500))
    cycles = [problem.detail for problem in problems(events) if problem.wrong is Wrong.CYCLE]
    paths = list(declared(MACHINES).paths())
    longest = max(len(path) for path in paths) + 1
    right.figure("events of one order", longest, "events")
    cycle.figure("events of one order", len(events), "events")
    cycle.claim(
        "two sensible reactions together go round for ever; the flow shows the cycle, before it runs and after",
        len(cycles) == 1 and declared(LOOPING).cycle() != () and len(events) > 10 * longest,
        topics=[f"{HARD}/cyclic-dependencies-risk"],
        fact=f"{len(events)} events of one order until it was stopped, {longest} at most without; {'; '.join(cycles)}",
    )
    passed = plays.passing(stage, another, recorded(events))
    cycle.claim(
        "no test of one service finds the cycle: alone, each service reacts once, as intended, and stops",
        passed.keys() >= {"stock", "payments"} and all(passed.values()) and len(cycles) == 1,
        topics=[f"{HARD}/testing-complexity"],
        fact=f"{sum(passed.values())} of {len(passed)} services pass, and all together run in a cycle",
    )
    plays.note_paths(run, paths)


if __name__ == "__main__":
    experiment.main()
