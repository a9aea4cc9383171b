"""Four services hear each other's events and nobody is in charge: does every order end, and who knows how?

The happy and the compensated flow, with one service missing for a while and with all of them killed in every window;
the flow drawn from the events; and the same services correlated by customer, without an inbox, without an outbox.
The wrong ways are ByCustomer, WithoutInbox and WithoutOutbox (saga/wrong/choreographing.py), each a few lines over the
right one, Service (saga/choreography/service.py).
"""

from collections.abc import Sequence

from saga.choreography.flow import declared, problems, recorded
from saga.choreography.machine import MACHINES
from saga.choreography.service import Service
from saga.order import Action, orders
from saga.services.invariant import Ending, judge
from saga.stage import choreography as hall
from saga.stage import plays
from saga.stage.choreography import RIGHT
from saga.stage.engines import choreography
from saga.stage.fates import Fates
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
    ),
)


@experiment.run
def main(run: Run) -> None:
    run.parameters["customers"] = hall.WORLD.customers
    with run.step("orders come while shipping is not there, and then it is"):
        stage, events = play_flow(run)
    draw(run, events)
    with run.step("every event once more, under another id"):
        play_repeats(run, stage, events)
    with run.step("kill -9 every service in every window"):
        play_kills(run)
    for number, kind in ((1, ByCustomer), (2, WithoutInbox), (3, WithoutOutbox), (0, Service)):
        with run.step(f"two orders of each customer at once: {plays.VARIANTS[kind]}"):
            play_kind(run, kind, number)
    with run.step("events that nobody can read, among others"):
        claim_foreign(run, "choreography", choreography.opened, Events, [f"{MADE}/event-handlers"], variant=RIGHT)


def play_flow(run: Run) -> tuple[hall.Stage, list[Event]]:
    """Orders of which one is refused at each step, and the others have their seeded fates."""
    right = run.about(RIGHT)
    todo = list(orders(run.seed, run.pick(smoke=8, demo=60, full=300), hall.WORLD))
    stage = hall.open_stage(run, "flow", fates=plays.one_refused_at_each(todo, run.seed))
    away, events = plays.play_without_shipping(stage, todo, run.worker)
    hall.judged(run, stage)
    fates, ends = stage.shop.fates, hall.ended(stage)
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
    complete = hall.endings(standing, Ending.COMPLETE)
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
    hall.keep_flow(run, seen)
    hall.note_flow(run, whole, "four services")
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


def play_repeats(run: Run, stage: hall.Stage, events: Sequence[Event]) -> None:
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
    todo = list(orders(run.seed, run.pick(smoke=16, demo=150, full=600), hall.WORLD))
    stage = hall.open_stage(run, "kills", fates=Fates(run.seed))
    plays.play(stage, todo, run.worker, kills=list(ServiceWindow))
    history, standing = hall.judged(run, stage, fault="SIGKILL"), judge(stage.shop)
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


CLAIMS = {
    ByCustomer: "failure events that name only the customer, a key that is not unique, undo another order",
    WithoutInbox: "without an inbox, an event that comes again charges again",
    WithoutOutbox: "without an outbox, a kill between commit and send stops the saga for good, half done",
    Service: "with all three, the same orders under the same kills end as they should, charged once at most",
}
TOPICS = {WithoutInbox: f"{MADE}/event-handlers", WithoutOutbox: f"{MADE}/event-publishing"}


def play_kind(run: Run, kind: type[Service], number: int) -> None:
    todo, fates = plays.pairs(run.pick(smoke=5, demo=10, full=20), hall.WORLD)
    stage = hall.open_stage(run, f"pairs-{number}", fates=fates)
    plays.play_pairs(stage, todo, kind, run.worker)
    hall.judged(run, stage, plays.VARIANTS[kind], fault=None if kind is ByCustomer else "SIGKILL")
    standing = judge(stage.shop)
    twice, half = sum("charged 2," in one for one in standing.violations), standing.count(Ending.INCONSISTENT)
    about = run.about(plays.VARIANTS[kind], wrong_way=kind is not Service)
    about.figure("orders half done", half, "orders")
    about.figure("orders charged twice", twice, "orders")
    holds = {WithoutInbox: twice > 0, Service: not standing.violations}.get(kind, half > 0)
    topics, fact = TOPICS.get(kind, f"{MADE}/correlation-handling"), f"{half} half done, {twice} charged twice"
    about.claim(CLAIMS[kind], holds, topics=[topics], fact=f"of {len(todo)} orders {fact}")


if __name__ == "__main__":
    experiment.main()
