"""Four services hear each other's events and nobody is in charge: does every order end, and who knows how?

The happy and the compensated flow, with one service missing for a while and with all of them killed in every window;
the flow drawn from the events; a fraud check added, with and without forgetting somebody; a cycle on purpose; and the
same services correlated by customer, without an inbox, without an outbox.
"""

from collections.abc import Sequence

from saga.choreography.flow import Wrong, declared, problems, recorded
from saga.choreography.machine import MACHINES
from saga.choreography.service import Service
from saga.order import Action, Order, Outcome, orders
from saga.services.invariant import Ending, Standing, judge
from saga.stage import changes, plays
from saga.stage.changes import FORGOTTEN, LOOPING, WITH_FRAUD, suspect, told
from saga.stage.choreography import RIGHT, WORLD, Stage, ended, endings, judged, note_flow, open_stage
from saga.stage.engines import Site, choreography
from saga.stage.fates import Fate, Fates, open_shop
from saga.stage.foreign.choreography import Events
from saga.stage.foreign.claimed import claim_foreign
from saga.windows import ServiceWindow
from saga.wrong.choreographing import ByCustomer, WithoutInbox, WithoutOutbox

from shared.checkers import duplicate_delivery, duplicate_effect, lost, phantom
from shared.event import Event
from shared.experiment import Experiment, Run

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
    for number, kind in ((1, ByCustomer), (2, WithoutInbox), (3, WithoutOutbox), (0, Service)):
        with run.step(f"two orders of each customer at once: {VARIANTS[kind]}"):
            play_kind(run, kind, number)
    with run.step("a fraud check comes in, and payments is told, or not"):
        play_fraud(run)
    with run.step("events that nobody can read, among others"):
        claim_foreign(run, "choreography", choreography.opened, Events, [f"{MADE}/event-handlers"], variant=RIGHT)
    with run.step("stock asks once more, and payments answers"):
        play_cycle(run)


def play_flow(run: Run) -> tuple[Stage, list[Event]]:
    """Orders of which one is refused at each step, and the others have their seeded fates."""
    right = run.about(RIGHT)
    todo = list(orders(run.seed, run.pick(smoke=8, demo=60, full=300), WORLD))
    stage = open_stage(run, "flow", fates=plays.one_refused_at_each(todo, run.seed))
    away, events = plays.play_without_shipping(stage, todo, run.worker)
    judged(run, stage)
    fates, ends = stage.shop.fates, ended(stage)
    payable = {order.id for order in todo if plays.refused_at(fates, order) in (None, Action.SHIP)}
    right.claim(
        "with shipping away, the others carry each order as far as they can: paid, or undone; when it is back, it all"
        " goes on by itself",
        away.paid == payable and len(payable) + away.ended == ends == len(todo),
        topics=[f"{BASED}/no-single-coordinator"],
        fact=f"{len(away.paid)} paid and {away.ended} ended without shipping; {ends} of {len(todo)} ended with it",
    )
    refused = {order.id for order in todo if plays.refused_at(fates, order)}
    standing = judge(stage.shop)
    complete = endings(standing, Ending.COMPLETE)
    right.claim(
        "events alone bring every order to its end: complete, or undone by everybody where one service refuses",
        complete == {order.id for order in todo} - refused and not standing.violations,
        topics=[f"{BASED}/event-driven-coordination"],
        fact=f"{len(complete)} complete, {len(refused)} refused by a service, {len(standing.violations)} violations",
    )
    return stage, events


def draw(run: Run, events: Sequence[Event]) -> None:
    """The flow as it was recorded, beside what the machines together declare."""
    right = run.about(RIGHT)
    seen, whole = recorded(events), declared(MACHINES)
    (run.folder / "flow.mmd").write_text(seen.mermaid() + "\n")
    (run.folder / "flow.dot").write_text(seen.dot() + "\n")
    note_flow(run, whole, "four services")
    found = problems(events)
    right.claim(
        "every event is a service's reaction to one other event: the chain from click to end has no gap",
        not found and len(seen.arrows) > 0,
        topics=[f"{BASED}/services-react-to-events", f"{MADE}/correlation-handling"],
        fact=f"{sum(seen.arrows.values()):,} reactions, {len(found)} without their cause or in another's saga",
    )
    known = {machine.service: len(declared((machine,)).arrows) for machine in MACHINES}
    for service, count in known.items():
        right.figure("reactions that a service knows", count, "reactions", x=service, x_label="service")
    right.claim(
        "no service has the flow in its code: none has even half of the reactions",
        max(known.values()) * 2 < len(whole.arrows),
        topics=[f"{BASED}/decentralized-logic"],
        fact=", ".join(f"{service} {count}" for service, count in known.items()) + f", of {len(whole.arrows)}",
    )
    right.claim(
        "the flow stands nowhere: causation ids draw it from the events, and so do all machines together",
        seen.arrows.keys() == whole.arrows.keys(),
        topics=[f"{HARD}/hard-to-understand-full-flow"],
        fact=f"{len(seen.events)} event types, {len(seen.messages)} messages between {len(seen.services)} services",
    )


def play_repeats(run: Run, stage: Stage, events: Sequence[Event]) -> None:
    right = run.about(RIGHT)
    before = judge(stage.shop)
    count = plays.play_again(stage, events, run.worker)
    kept, after = plays.held(stage), judge(stage.shop)
    right.claim(
        "an event that does not fit a service's state of the saga changes nothing, and is kept with the reason",
        len(kept) == count > 0 and all("does not expect" in one.reason for one in kept) and after == before,
        topics=[f"{MADE}/state-machines-per-service"],
        fact=f"{count} events again under other ids, {len(kept)} kept, {len(after.violations)} violations",
    )


def play_kills(run: Run) -> None:
    right = run.about(RIGHT)
    todo = list(orders(run.seed, run.pick(smoke=16, demo=150, full=600), WORLD))
    stage = open_stage(run, "kills", fates=Fates(run.seed))
    plays.play(stage, todo, run.worker, kills=list(ServiceWindow))
    history, standing = judged(run, stage, fault="SIGKILL"), judge(stage.shop)
    wrong = lost(history) + phantom(history) + duplicate_effect(history)
    kills = {(fault.process, fault.note) for fault in history.faults}
    right.claim(
        "an event is in the outbox of the transaction that it tells of: kill any service in any window, none is lost",
        not wrong and len(kills) == len(MACHINES) * len(ServiceWindow),
        topics=[f"{MADE}/event-publishing", f"{MADE}/event-handlers"],
        fact=f"{len(kills)} kills, {len(history.committed):,} events, {len(duplicate_delivery(history))} came twice,"
        f" {len(lost(history))} lost, {len(duplicate_effect(history))} handled twice",
    )
    right.claim(
        "under seeded failures and kills, every order ends complete or compensated",
        not standing.violations and standing.count(Ending.COMPLETE) > 0,
        topics=[f"{BASED}/event-driven-coordination"],
        fact=f"{standing.count(Ending.COMPLETE)} complete, {standing.count(Ending.COMPENSATED)} compensated,"
        f" {len(standing.violations)} violations",
    )


VARIANTS = {
    ByCustomer: "correlated by customer",
    WithoutInbox: "no inbox",
    WithoutOutbox: "no outbox",
    Service: RIGHT,
}
CLAIMS = {
    ByCustomer: "failure events that name only the customer, a key that is not unique, undo another order",
    WithoutInbox: "without an inbox, an event that comes again charges again",
    WithoutOutbox: "without an outbox, a kill between commit and send stops the saga for good, half done",
    Service: "with all three, the same orders under the same kills end as they should, charged once at most",
}
TOPICS = {WithoutInbox: f"{MADE}/event-handlers", WithoutOutbox: f"{MADE}/event-publishing"}


def play_kind(run: Run, kind: type[Service], number: int) -> None:
    todo, fates = plays.pairs(run.pick(smoke=5, demo=10, full=20), WORLD)
    stage = open_stage(run, f"pairs-{number}", fates=fates)
    plays.play_pairs(stage, todo, kind, run.worker)
    judged(run, stage, VARIANTS[kind], fault=None if kind is ByCustomer else "SIGKILL")
    standing = judge(stage.shop)
    twice, half = sum("charged 2," in one for one in standing.violations), standing.count(Ending.INCONSISTENT)
    about = run.about(VARIANTS[kind], wrong_way=kind is not Service)
    about.figure("orders half done", half, "orders")
    about.figure("orders charged twice", twice, "orders")
    holds = {WithoutInbox: twice > 0, Service: not standing.violations}.get(kind, half > 0)
    topics, fact = TOPICS.get(kind, f"{MADE}/correlation-handling"), f"{half} half done, {twice} charged twice"
    about.claim(CLAIMS[kind], holds, topics=[topics], fact=f"of {len(todo)} orders {fact}")


def play_fraud(run: Run) -> None:
    todo = plays.suspects(run.pick(smoke=8, demo=20, full=100), WORLD)
    suspects = {order.id for order in todo if suspect(order)}
    claim_fraud(run, todo, suspects)
    stage = open_stage(run, "fraud-not-told", FORGOTTEN)
    orphans = recorded(plays.play(stage, todo, run.worker)).orphans()
    half, kept = endings(judge(stage.shop), Ending.INCONSISTENT), plays.held(stage)
    run.claim(
        "one of these changes forgotten: suspects have paid and are never refunded, and no service sees an error",
        half == suspects and not kept and orphans == {"fraud.suspected"},
        topics=[f"{HARD}/adding-steps-requires-multiple-changes"],
        fact=f"{len(half)} orders half done, {len(kept)} events kept; the recorded flow shows that nobody hears"
        f" {', '.join(orphans)}",
        variant="a change forgotten",
        wrong_way=True,
    )


def claim_fraud(run: Run, todo: Sequence[Order], suspects: set[str]) -> None:
    """The same orders, with payments and shipping told, and by a new version of a definition."""
    right = run.about(RIGHT)
    stage = open_stage(run, "fraud-told", WITH_FRAUD)
    plays.play(stage, todo, run.worker)
    note_flow(run, declared(WITH_FRAUD), "with a fraud check")
    heard, ours, (asked, played) = judge(stage.shop), told(), play_defined(run, todo)
    theirs = played.change
    for variant, change in {"choreography": ours, "one definition": theirs}.items():
        run.figure("existing services that a fraud check changes", len(change.services), "services", variant=variant)
        run.figure("other existing places that it changes", len(change.others), "places", variant=variant)
    undone = [endings(standing, Ending.COMPENSATED) for standing in (heard, asked)]
    unchecked = {order for order, outcome in played.without.items() if outcome is Outcome.COMPENSATED}
    right.claim(
        "beside the new service, a fraud check changes two that were there; with one definition, it changes none of"
        " them, only the definition and the list of commands",
        len(ours.services) == 2
        and not theirs.services
        and len(theirs.others) == 2
        and ours.new == theirs.new
        and undone == [suspects, suspects | unchecked]
        and {order for order, outcome in played.checked.items() if outcome is Outcome.COMPENSATED} == suspects
        and len(unchecked) == 1
        and not heard.violations + asked.violations,
        topics=[f"{HARD}/adding-steps-requires-multiple-changes"],
        fact=f"new: {', '.join(ours.new)}; changed: {', '.join(ours.services + ours.others)}; with one definition:"
        f" {', '.join(theirs.services + theirs.others)}; {len(undone[0])} suspects undone, and"
        f" {len(undone[1] - unchecked)} of {len(todo)} by the orchestrator, whose four services run on as they were",
    )


def play_defined(run: Run, todo: Sequence[Order]) -> tuple[Standing, changes.Played]:
    """By our orchestrator: the same orders before there is a check, and with it."""
    before, fates = changes.earlier(todo)
    shop = open_shop(run, "defined", fates, WORLD)
    site = Site(shop, f"{run.name}_defined", run.endpoints, run.folder, run.worker, keep=run.keep)
    played = changes.play(site, before, todo)
    return judge(shop), played


def play_cycle(run: Run) -> None:
    cycle = run.about("a cycle", wrong_way=True)
    right = run.about(RIGHT)
    order, another = orders(run.seed, 2, WORLD)
    fates = Fates(steps={}, undos={}, fixed={(one.id, Action.CHARGE): Fate.REFUSED for one in (order, another)})
    stage = open_stage(run, "cycle", LOOPING, fates)
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
        "no test of one service finds the cycle: alone, each answers what it hears as meant, once, and rests",
        passed.keys() >= {"stock", "payments"} and all(passed.values()) and len(cycles) == 1,
        topics=[f"{HARD}/testing-complexity"],
        fact=f"{sum(passed.values())} of {len(passed)} services pass, and all together run in a cycle",
    )
    for path in paths:
        name = next((arrow.said for arrow in path if arrow.said.endswith("refused")), "all goes well")
        needed = len({arrow.service for arrow in path})
        right.figure("services that a test needs", needed, "services", x=name, x_label="path")


if __name__ == "__main__":
    experiment.main()
