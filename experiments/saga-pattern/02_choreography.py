"""Four services hear each other's events and nobody is in charge: does every order end, and who knows how?

The happy and the compensated flow, with one service missing for a while and with all of them killed in every window;
the flow drawn from the events; a fraud check added, with and without forgetting somebody; a cycle on purpose; and the
same services without correlation ids, without an inbox, without an outbox.
"""

from collections.abc import Sequence

from saga.choreography import scenes
from saga.choreography.changes import FORGOTTEN, LOOPING, WITH_FRAUD, by_service, differing, orchestrated, suspect
from saga.choreography.flow import Flow, Wrong, declared, problems, recorded
from saga.choreography.machine import MACHINES, Machines
from saga.choreography.playing import Kind
from saga.choreography.service import ServiceWindow
from saga.choreography.stage import Stage, create, drop, settle
from saga.fates import KIND, Fate, Fates
from saga.invariant import Ending, Standing, judge
from saga.order import Action, World, orders

from shared.checkers import duplicate_delivery, duplicate_effect, lost, phantom
from shared.event import Event
from shared.experiment import Experiment, Run
from shared.history import History

BASED, MADE, HARD = "I.4/choreography-based-saga", "I.4/choreography-implementation", "I.4/choreography-challenges"
experiment = Experiment(
    title="Choreography: services that react to events",
    servers=("postgres", "kafka"),
    topics=(
        "I.4/choreography-based-saga/event-driven-coordination",
        "I.4/choreography-based-saga/services-react-to-events",
        "I.4/choreography-based-saga/decentralized-logic",
        "I.4/choreography-based-saga/no-single-coordinator",
        "I.4/choreography-implementation/event-publishing",
        "I.4/choreography-implementation/event-handlers",
        "I.4/choreography-implementation/state-machines-per-service",
        "I.4/choreography-implementation/correlation-handling",
        "I.4/choreography-challenges/hard-to-understand-full-flow",
        "I.4/choreography-challenges/cyclic-dependencies-risk",
        "I.4/choreography-challenges/testing-complexity",
        "I.4/choreography-challenges/adding-steps-requires-multiple-changes",
    ),
)
WORLD = World()
RIGHT = Kind.RIGHT


@experiment.run
def main(run: Run) -> None:
    run.parameters["customers"] = WORLD.customers
    with run.step("orders come while shipping is not there, and then it is"):
        stage, events = play_flow(run)
    draw(run, events)
    with run.step("every event once more, under another id"):
        play_repeats(run, stage, events)
    with run.step("kill -9 every service in every window"):
        play_kills(run)
    for kind in (Kind.NO_CORRELATION, Kind.NO_INBOX, Kind.NO_OUTBOX, Kind.RIGHT):
        with run.step(f"two orders of each customer at once: {kind}"):
            play_kind(run, kind)
    with run.step("a fraud check comes in, and payments is told, or not"):
        play_fraud(run)
    with run.step("stock asks once more, and payments answers"):
        play_cycle(run)


def open_stage(run: Run, name: str, machines: Machines = MACHINES, fates: Fates = KIND) -> Stage:
    history = run.history_file(name)
    database, broker = run.endpoints["postgres"], run.endpoints["kafka"]
    stage = create(database, broker, f"{run.name}_{name}".replace("-", "_"), history, machines, fates, WORLD)
    if not run.keep:
        run.cleanup(lambda: drop(database, stage))
    return stage


def judged(run: Run, stage: Stage, variant: str = RIGHT, fault: str | None = None) -> History:
    settle(stage)
    return run.judge(stage.history.stem, variant=variant, wrong_way=variant != RIGHT, fault=fault)


def endings(standing: Standing, ending: Ending) -> set[str]:
    return {order for order, found in standing.endings.items() if found is ending}


def play_flow(run: Run) -> tuple[Stage, list[Event]]:
    """Orders of which one is refused at each step, and the others have their seeded fates."""
    todo = list(orders(run.seed, run.pick(smoke=12, demo=60, full=300), WORLD))
    stage = open_stage(run, "flow", fates=scenes.one_refused_at_each(todo, run.seed))
    paid, events = scenes.play_without_shipping(stage, todo, run.worker)
    judged(run, stage)
    run.claim(
        "with shipping away, the others carry each order as far as they can: paid, or undone; when it is back, it all"
        " goes on by itself",
        0 < paid < len(todo),
        topics=[f"{BASED}/no-single-coordinator"],
        fact=f"{paid} paid and {len(todo) - paid} ended without shipping; all {len(todo)} ended with it",
        variant=RIGHT,
    )
    refused = {order.id for order in todo if scenes.refused_at(stage.shop.fates, order)}
    standing = judge(stage.shop)
    complete = endings(standing, Ending.COMPLETE)
    run.claim(
        "events alone bring every order to its end: complete, or undone by everybody where one service refuses",
        complete == {order.id for order in todo} - refused and not standing.violations,
        topics=[f"{BASED}/event-driven-coordination"],
        fact=f"{len(complete)} complete, {len(refused)} refused by a service, {len(standing.violations)} violations",
        variant=RIGHT,
    )
    return stage, events


def draw(run: Run, events: Sequence[Event]) -> None:
    """The flow as it was recorded, beside what the machines together declare."""
    seen, whole = recorded(events), declared(MACHINES)
    (run.folder / "flow.mmd").write_text(seen.mermaid() + "\n")
    (run.folder / "flow.dot").write_text(seen.dot() + "\n")
    note_flow(run, whole, "four services")
    found = problems(events)
    run.claim(
        "every event is a service's reaction to one other event: the chain from click to end has no gap",
        not found and len(seen.arrows) > 0,
        topics=[f"{BASED}/services-react-to-events", f"{MADE}/correlation-handling"],
        fact=f"{sum(seen.arrows.values()):,} reactions, {len(found)} without their cause or in another's saga",
        variant=RIGHT,
    )
    known = {machine.service: len(declared((machine,)).arrows) for machine in MACHINES}
    for service, count in known.items():
        run.figure("reactions that a service knows", count, "reactions", variant=RIGHT, x=service, x_label="service")
    run.claim(
        "no service has the flow in its code: each has its own reactions, and names only whom it hears",
        max(known.values()) * 2 < len(whole.arrows) == sum(known.values()),
        topics=[f"{BASED}/decentralized-logic"],
        fact=", ".join(f"{service} {count}" for service, count in known.items()) + f", of {len(whole.arrows)}",
        variant=RIGHT,
    )
    run.claim(
        "the flow stands nowhere: causation ids draw it from the events, and so do all machines together",
        seen.arrows.keys() == whole.arrows.keys(),
        topics=[f"{HARD}/hard-to-understand-full-flow"],
        fact=f"{len(seen.events)} event types, {len(seen.messages)} messages between {len(seen.services)} services",
        variant=RIGHT,
    )


def note_flow(run: Run, flow: Flow, variant: str) -> None:
    sizes = {"services": len(flow.services), "event types": len(flow.events), "messages": len(flow.messages)}
    for what, count in {**sizes, "reactions": len(flow.arrows)}.items():
        run.figure("size of the flow", count, "", variant=variant, x=what, x_label="number of")
    run.figure("pairs of services that hear each other", len(flow.mutual()), "pairs", variant=variant)


def play_repeats(run: Run, stage: Stage, events: Sequence[Event]) -> None:
    before = judge(stage.shop)
    count = scenes.play_again(stage, events, run.worker)
    kept, after = scenes.held(stage), judge(stage.shop)
    run.claim(
        "an event that does not fit a service's state of the saga changes nothing, and is kept with the reason",
        len(kept) == count > 0 and all("does not expect" in one.reason for one in kept) and after == before,
        topics=[f"{MADE}/state-machines-per-service"],
        fact=f"{count} events again under other ids, {len(kept)} kept, {len(after.violations)} violations",
        variant=RIGHT,
    )


def play_kills(run: Run) -> None:
    todo = list(orders(run.seed, run.pick(smoke=24, demo=150, full=600), WORLD))
    stage = open_stage(run, "kills", fates=Fates(run.seed))
    scenes.play(stage, todo, run.worker, kills=list(ServiceWindow))
    history, standing = judged(run, stage, fault="SIGKILL"), judge(stage.shop)
    wrong = lost(history) + phantom(history) + duplicate_effect(history)
    kills = {(fault.process, fault.note) for fault in history.faults}
    run.claim(
        "an event is in the outbox of the transaction that it tells of: kill any service in any window, none is lost",
        not wrong and len(kills) == len(MACHINES) * len(ServiceWindow),
        topics=[f"{MADE}/event-publishing", f"{MADE}/event-handlers"],
        fact=f"{len(kills)} kills, {len(history.committed):,} events, {len(duplicate_delivery(history))} came twice,"
        f" {len(lost(history))} lost, {len(duplicate_effect(history))} handled twice",
        variant=RIGHT,
    )
    run.claim(
        "under seeded failures and kills, every order ends complete or compensated",
        not standing.violations and standing.count(Ending.COMPLETE) > 0,
        topics=[f"{BASED}/event-driven-coordination"],
        fact=f"{standing.count(Ending.COMPLETE)} complete, {standing.count(Ending.COMPENSATED)} compensated,"
        f" {len(standing.violations)} violations",
        variant=RIGHT,
    )


CLAIMS = {
    Kind.NO_CORRELATION: "without correlation ids, one order's failure undoes another order of the same customer",
    Kind.NO_INBOX: "without an inbox, an event that comes again charges again",
    Kind.NO_OUTBOX: "without an outbox, a kill between commit and send stops the saga for good, half done",
    Kind.RIGHT: "with all three, the same orders under the same kills end as they should, charged once at most",
}
TOPICS = {Kind.NO_INBOX: f"{MADE}/event-handlers", Kind.NO_OUTBOX: f"{MADE}/event-publishing"}


def play_kind(run: Run, kind: Kind) -> None:
    todo, fates = scenes.pairs(run.pick(smoke=5, demo=10, full=20), WORLD)
    stage = open_stage(run, f"pairs-{list(Kind).index(kind)}", fates=fates)
    scenes.play_pairs(stage, todo, kind, run.worker)
    judged(run, stage, kind, fault=None if kind is Kind.NO_CORRELATION else "SIGKILL")
    standing = judge(stage.shop)
    twice = sum("charged 2," in one for one in standing.violations)
    half = standing.count(Ending.INCONSISTENT)
    holds = {Kind.NO_INBOX: twice > 0, Kind.RIGHT: not standing.violations}.get(kind, half > 0)
    for what, count in {"orders half done": half, "orders charged twice": twice}.items():
        run.figure(what, count, "orders", variant=kind, wrong_way=kind is not RIGHT)
    run.claim(
        CLAIMS[kind],
        holds,
        topics=[TOPICS.get(kind, f"{MADE}/correlation-handling")],
        fact=f"of {len(todo)} orders {half} half done, {twice} charged twice",
        variant=kind,
        wrong_way=kind is not RIGHT,
    )


def play_fraud(run: Run) -> None:
    todo = scenes.suspects(run.pick(smoke=8, demo=20, full=100), WORLD)
    left: dict[str, Standing] = {}
    for name, machines in {"told": WITH_FRAUD, "not-told": FORGOTTEN}.items():
        stage = open_stage(run, f"fraud-{name}", machines)
        scenes.play(stage, todo, run.worker)
        left[name] = judge(stage.shop)
    note_flow(run, declared(WITH_FRAUD), "with a fraud check")
    claim_fraud(run, left["told"], left["not-told"], {order.id for order in todo if suspect(order)})


def claim_fraud(run: Run, told: Standing, forgotten: Standing, suspects: set[str]) -> None:
    services = differing(by_service(MACHINES), by_service(WITH_FRAUD))
    places = differing(*orchestrated())
    for variant, found in {"choreography": services, "one definition": places}.items():
        run.figure("places that a fraud check changes", len(found), "places", variant=variant)
    compensated = endings(told, Ending.COMPENSATED)
    run.claim(
        "a step between two services is a change to both and to whoever has to undo it; in one definition it is one",
        len(services) == 3 and len(places) == 1 and not told.violations and compensated == suspects,
        topics=[f"{HARD}/adding-steps-requires-multiple-changes"],
        fact=f"changed: {', '.join(services)}; orchestrated: {', '.join(places)}; {len(compensated)} suspects undone",
        variant=RIGHT,
    )
    half = endings(forgotten, Ending.INCONSISTENT)
    orphans = declared(FORGOTTEN).orphans()
    run.claim(
        "one of these changes forgotten: suspects have paid and are never refunded, and no service sees an error",
        half == suspects and orphans == {"fraud.suspected"},
        topics=[f"{HARD}/adding-steps-requires-multiple-changes"],
        fact=f"{len(half)} orders half done; the flow of all machines shows it: nobody hears {', '.join(orphans)}",
        variant="a change forgotten",
        wrong_way=True,
    )


def play_cycle(run: Run) -> None:
    order = next(orders(run.seed, 1, WORLD))
    fates = Fates(steps={}, undos={}, fixed={(order.id, Action.CHARGE): Fate.REFUSED})
    stage = open_stage(run, "cycle", LOOPING, fates)
    events = scenes.run_away(stage, order, run.worker, run.pick(smoke=150, demo=500, full=1_500))
    cycles = [problem.detail for problem in problems(events) if problem.wrong is Wrong.CYCLE]
    longest = max(len(path) for path in declared(MACHINES).paths()) + 1
    run.figure("events of one order", longest, "events", variant=RIGHT)
    run.figure("events of one order", len(events), "events", variant="a cycle", wrong_way=True)
    run.claim(
        "two sensible reactions together go round for ever; the flow shows the cycle, before it runs and after",
        len(cycles) == 1 and declared(LOOPING).cycle() != () and len(events) > 10 * longest,
        topics=[f"{HARD}/cyclic-dependencies-risk"],
        fact=f"{len(events)} events of one order until it was stopped, {longest} at most without; {'; '.join(cycles)}",
        variant="a cycle",
        wrong_way=True,
    )
    claim_tests(run)


def claim_tests(run: Run) -> None:
    paths = list(declared(MACHINES).paths())
    for path in paths:
        name = next((arrow.said for arrow in path if arrow.said.endswith("refused")), "all goes well")
        needed = len({arrow.service for arrow in path})
        run.figure("services that a test needs", needed, "services", variant=RIGHT, x=name, x_label="path")
    happy = max(paths, key=lambda path: path[-1].said == "orders.completed")
    alone = [machine.service for machine in LOOPING if declared((machine,)).cycle()]
    run.claim(
        "no test of one service finds the cycle: each machine by itself has none, and all of them together have one",
        alone == [] and declared(LOOPING).cycle() != (),
        topics=[f"{HARD}/testing-complexity"],
        fact=f"cycles in {len(alone)} of {len(LOOPING)} machines, and in their whole; {len(paths)} paths, of which the"
        f" happy one has {len(happy)} of {len(declared(MACHINES).arrows)} reactions",
        variant=RIGHT,
    )


if __name__ == "__main__":
    experiment.main()
