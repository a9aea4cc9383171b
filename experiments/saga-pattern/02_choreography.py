"""Four services react to each other's events and nobody is in charge: does every order end, and who knows how?

The happy and the compensated flow run with one service down for a while, and with all of them killed in every crash
window. The flow is drawn from the recorded events. Three wrong ways change a few methods of the right one, Service
(saga/choreography/service.py). In saga/wrong/choreographing.py, ByCustomer overrides `about` and `event`, WithoutInbox
`handle` and `perform`, WithoutOutbox `say` and `publish`.
"""

from saga.choreography.flow import declared, problems, recorded
from saga.choreography.service import Service
from saga.services.invariant import judge
from saga.stage import plays
from saga.wrong.choreographing import ByCustomer, WithoutInbox, WithoutOutbox

from shared.checkers import duplicate_delivery, duplicate_effect, lost, phantom
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
    run.parameters["customers"] = plays.WORLD.customers
    with run.step("orders come while shipping is not there, and then it is"):
        course = plays.run_course(run, run.pick(smoke=8, demo=60, full=300))
        claim_course(run, course)
    claim_flow(run, course)
    with run.step("every event once more, under another id"):
        repeat(run, course)
    with run.step("kill -9 every service in every window"):
        kill(run)
    for kind in (ByCustomer, WithoutInbox, WithoutOutbox, Service):
        with run.step(f"two orders of each customer at once: {plays.VARIANTS[kind]}"):
            play_kind(run, kind)
    with run.step("events that nobody can read, among others"):
        plays.claim_unreadable(run, f"{MADE}/event-handlers")


def claim_course(run: Run, course: plays.Course) -> None:
    """Orders of which one is refused at each step, and the others have their seeded fates."""
    right, count = run.about(plays.RIGHT), len(course.todo)
    away, payable, ends = course.away, course.payable, course.ended
    right.claim(
        "with shipping away, the others carry each order as far as they can: paid, or undone; when it is back, it all"
        " goes on by itself",
        away.paid == payable and len(payable) + away.ended == ends == count,
        topics=[f"{BASED}/no-single-coordinator"],
        fact=f"{len(away.paid)} paid and {away.ended} ended without shipping; {ends} of {count} ended with it",
    )
    standing, refused = judge(course.stage.shop), course.refused
    right.claim(
        "events alone bring every order to its end: complete, or undone by everybody where one service refuses",
        standing.complete == {order.id for order in course.todo} - refused and not standing.violations,
        topics=[f"{BASED}/event-driven-coordination"],
        fact=f"{len(standing.complete)} complete, {len(refused)} refused by a service,"
        f" {len(standing.violations)} violations",
    )


def claim_flow(run: Run, course: plays.Course) -> None:
    """The flow as it was recorded, beside what the machines together declare."""
    right, machines = run.about(plays.RIGHT), course.stage.machines
    seen, whole = recorded(course.events), declared(machines)
    plays.keep_flow(run, seen)
    plays.note_flow(run, whole, "four services")
    found = problems(course.events)
    right.claim(
        "every event is a service's reaction to one other event: the chain from click to end has no gap",
        not found and len(seen.arrows) > 0,
        topics=[f"{BASED}/services-react-to-events", f"{MADE}/correlation-handling"],
        fact=f"{sum(seen.arrows.values()):,} reactions, {len(found)} without their cause or in another's saga",
    )
    known = {machine.service: len(declared((machine,)).arrows) for machine in machines}
    for service, count in known.items():
        right.figure("reactions that a service knows", count, "reactions", x=service, x_label="service")
    right.claim(
        "no service's code contains the whole flow: each has less than half of the reactions",
        max(known.values()) * 2 < len(whole.arrows),
        topics=[f"{BASED}/decentralized-logic"],
        fact=", ".join(f"{service} {count}" for service, count in known.items()) + f", of {len(whole.arrows)}",
    )
    right.claim(
        "the flow is written down nowhere: causation ids draw it from the events, and so do all machines together",
        seen.arrows.keys() == whole.arrows.keys(),
        topics=[f"{HARD}/hard-to-understand-full-flow"],
        fact=f"{len(seen.events)} event types, {len(seen.messages)} messages between {len(seen.services)} services",
    )


def repeat(run: Run, course: plays.Course) -> None:
    before = judge(course.stage.shop)
    count = plays.play_again(course.stage, course.events, run.worker)
    kept, after = plays.held(course.stage), judge(course.stage.shop)
    run.about(plays.RIGHT).claim(
        "an event that does not fit a service's state of the saga changes nothing, and is kept with the reason",
        len(kept) == count > 0 and all("does not expect" in one.reason for one in kept) and after == before,
        topics=[f"{MADE}/state-machines-per-service"],
        fact=f"{count} events again under other ids, {len(kept)} kept, {len(after.violations)} violations",
    )


def kill(run: Run) -> None:
    right = run.about(plays.RIGHT)
    stage, history, wanted = plays.play_killed(run, run.pick(smoke=16, demo=150, full=600))
    wrong = lost(history) + phantom(history) + duplicate_effect(history)
    kills = {(fault.process, fault.note) for fault in history.faults}
    right.claim(
        "an event is in the outbox of the transaction that it tells of: kill any service in any window, none is lost",
        not wrong and len(kills) == wanted,
        topics=[f"{MADE}/event-publishing", f"{MADE}/event-handlers"],
        fact=f"{len(kills)} kills, {len(history.committed):,} events, {len(duplicate_delivery(history))} came twice,"
        f" {len(lost(history))} lost, {len(duplicate_effect(history))} handled twice",
    )
    standing = judge(stage.shop)
    right.claim(
        "under seeded failures and kills, every order ends complete or compensated",
        not standing.violations and len(standing.complete) > 0,
        topics=[f"{BASED}/event-driven-coordination"],
        fact=f"{len(standing.complete)} complete, {len(standing.compensated)} compensated,"
        f" {len(standing.violations)} violations",
    )


CLAIMS = {
    ByCustomer: "correlated by customer, which is not unique: a failure event undoes another order of the customer",
    WithoutInbox: "without an inbox, an event that comes again charges again",
    WithoutOutbox: "without an outbox, a kill between commit and send stops the saga for good, half done",
    Service: "with all three, the same orders under the same kills end as they should, charged once at most",
}
TOPICS = {WithoutInbox: f"{MADE}/event-handlers", WithoutOutbox: f"{MADE}/event-publishing"}


def play_kind(run: Run, kind: type[Service]) -> None:
    customers = run.pick(smoke=5, demo=10, full=20)
    about = run.about(plays.VARIANTS[kind], wrong_way=kind is not Service)
    standing, twice = plays.half_done_and_twice(run, kind, customers)
    half = len(standing.inconsistent)
    about.figure("orders half done", half, "orders")
    about.figure("orders charged twice", twice, "orders")
    holds = {WithoutInbox: twice > 0, Service: not standing.violations}.get(kind, half > 0)
    topics, fact = TOPICS.get(kind, f"{MADE}/correlation-handling"), f"{half} half done, {twice} charged twice"
    about.claim(CLAIMS[kind], holds, topics=[topics], fact=f"of {2 * customers} orders {fact}")


if __name__ == "__main__":
    experiment.main()
