"""Unreadable data: does one bad message, saga or answer stop all those behind it?

Among good sagas are sagas of another program, answers in Latin-1, and messages that are no commands. Two consumers
crash on what they cannot read (saga/wrong/consuming.py: `careless`, and `half`, because of its `msgspec_only`). They
get the same commands as the right one, which puts unreadable commands aside (saga/services/host.py: `Host._answer`).
"""

from saga.order import Outcome
from saga.services.host import Host
from saga.services.invariant import judge
from saga.stage import poison
from saga.wrong.consuming import careless, half

from shared.experiment import Experiment, Run

DEAD_LETTER = "I.4/error-handling/dead-letter-handling"
experiment = Experiment(title="Poison: what nobody can read", servers=("postgres", "kafka"), topics=(DEAD_LETTER,))


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=5, demo=10, full=20)
    with poison.desk(run) as desk:
        with run.step("sagas that nobody can read, among others"):
            unreadable_sagas(run, desk, count)
        with run.step("answers that nobody can read"):
            unreadable_answers(run, desk, count)
    found = judge(desk.shop).violations
    run.claim("in the end every order is whole or undone", not found, fact=f"{len(found)} violations")
    with run.step("commands that nobody can read, among others"):
        unreadable_commands(run, count)


def unreadable_sagas(run: Run, desk: poison.Desk, count: int) -> None:
    """Sagas of other programs and of a newer definition, and answers that fit nothing, among sagas that are fine."""
    parking = run.about("park it", topics=[DEAD_LETTER])
    begun = poison.begin_among_others(desk, count)
    ended, parked, aside = desk.ended(begun.all), desk.parked(), desk.put_aside(3)
    parking.claim(
        "a saga that nobody can read is parked with its reason, an answer that fits nothing is put aside; others go on"
        " (msgspec#646: JSON too deep for the parser; eliza#18079: half a character)",
        parked.keys() == {*begun.unreadable, *begun.unknown}
        and all("cannot be read" in parked[saga] for saga in begun.unreadable)
        and all("no version 2" in parked[saga] for saga in begun.unknown)
        and all(ended[saga] is Outcome.COMPLETED for saga in begun.fine)
        and len(aside) == 3,
        fact=f"{count} sagas complete, {len(parked)} parked, {len(aside)} answers put aside: {aside[0].reason}",
    )
    poison.deploy_newer(desk)
    again = desk.retry(begun.unknown)
    parking.claim(
        "nothing of a parked saga is lost: when the new definition is there, it goes on from where it was",
        set(again.values()) == {Outcome.COMPLETED},
        fact=f"{len(again)} sagas retried and complete",
    )


def unreadable_answers(run: Run, desk: poison.Desk, count: int) -> None:
    """A service answers in Latin-1, while these sagas wait for it."""
    begun = poison.begin_garbled(desk, count)
    ended, parked = desk.ended(begun), desk.parked()
    reasons = [parked[saga] for saga in begun if saga in parked]
    again = desk.retry(begun)
    run.about("park it", topics=[DEAD_LETTER]).claim(
        "an answer that nobody can read: its saga waits for the operator with the reason, and goes on when it is told",
        set(ended.values()) == {Outcome.PARKED}
        and all(reason.startswith("nobody can read the answer") for reason in reasons)
        and set(again.values()) == {Outcome.COMPLETED},
        fact=f"{len(ended)} sagas parked, {len(again)} retried and complete: {reasons[0]}",
    )


def unreadable_commands(run: Run, count: int) -> None:
    """The same topic, with commands in the middle that are none, read by three kinds of consumer."""
    lane = poison.lane(run, count)
    crashes, placed = lane.dying(careless, of="not a request")
    run.about("crash and restart", wrong_way=True, topics=[DEAD_LETTER]).claim(
        "a consumer that crashes on an unreadable message crashes on it again: nothing behind it is ever handled",
        crashes == poison.CRASHES and placed == lane.before,
        fact=f"{crashes} crashes, {placed} of {count - 1} orders placed",
    )
    crashes, placed = lane.dying(half, of="Decode")
    run.about("its parser's own error", wrong_way=True, topics=[DEAD_LETTER]).claim(
        "a consumer that sets aside only its parser's own errors crashes on everything else: a byte that is not UTF-8,"
        " JSON that is nested too deep",
        crashes == poison.CRASHES and placed == lane.before,
        fact=f"{crashes} crashes, {placed} of {count - 1} orders placed",
        source="fkie-cad/Logprep#640",
    )
    placed, aside = lane.hosted(Host)
    run.about("park it", topics=[DEAD_LETTER]).claim(
        "a consumer that sets them aside, whole and with the reason, handles everything else",
        [one.value for one in aside] == lane.poison and all(one.reason for one in aside),
        fact=f"{placed} of {count - 1} orders placed, {len(aside)} put aside: {aside[0].reason}",
    )


if __name__ == "__main__":
    experiment.main()
