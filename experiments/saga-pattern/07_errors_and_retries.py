"""What do retries do to an overloaded service, and what do sagas do when a service does not answer?

The same rush of sagas calls the same service under five retry policies, which are data: `policies`
(saga/stage/retrying.py). Each is a Retry; they differ in its `pause` (saga/orchestrator/definition.py). Then sagas with
a deadline and sagas without one wait for a service that is down: the timeout is a field of their definitions.
"""

from functools import partial

from saga.order import Outcome
from saga.stage import retrying
from saga.stage.retrying import RIGHT, Rushed

from shared.experiment import Experiment, Run, Scale

TIMEOUT = "I.4/error-handling/saga-timeout"
BACKOFF = "I.4/error-handling/retries-with-backoff"
experiment = Experiment(
    title="Errors: retry storms and deadlines",
    servers=("postgres", "kafka"),
    topics=(BACKOFF, TIMEOUT),
)
LONGEST = 30.0  # seconds of the right one's patience
DEADLINE = 1.0  # seconds of a saga that has one


@experiment.run
def main(run: Run) -> None:
    rushed = retrying.rush_by_every_policy(run, LONGEST)
    claim_once(run, rushed)
    (claim_counts if run.scale is Scale.SMOKE else claim_rushes)(run, rushed)
    retrying.note_rushes(run, rushed.by)
    with run.step("wait for a service that is out of order, with a deadline and without"):
        waited = retrying.wait_for_shipping(run, run.pick(smoke=5, demo=10, full=20), DEADLINE)
    claim_deadlines(run, waited)
    found = waited.violations
    run.claim("in the end every order is whole or undone", not found, fact=f"{len(found)} violations")


def claim_once(run: Run, rushed: Rushed) -> None:
    run.claim(
        "however often a saga asks, it is charged once",
        rushed.cents == rushed.opening and rushed.calls > run.pick(1, 2, 2) * rushed.charged,
        fact=f"{rushed.calls:,} calls, {rushed.charged:,} charges",
    )


def claim_counts(run: Run, rushed: Rushed) -> None:
    """What holds however long the machine stands still: of times and rates, nothing."""
    right, given_up = rushed.by[RIGHT], rushed.by["no retry"].given_up
    text, served = "backoff and jitter: every saga is served", len(right.served)
    claim_rush(run, rushed, RIGHT, text, served == right.sagas, f"{served} sagas")
    text = "no retry: what sagas give up is done all the same"
    holds = rushed.done_in_vain == len(given_up) > 0 and rushed.charged == right.sagas * len(rushed.by)
    claim_rush(run, rushed, "no retry", text, holds, f"{rushed.done_in_vain} done after they gave up")


def claim_rushes(run: Run, rushed: Rushed) -> None:
    """What each did until the right one had served all, and in as much time after that."""
    rushes, done = rushed.by, rushed.done_in_vain
    right, most = rushes[RIGHT], rushes[RIGHT].sagas / 2
    vain = rushes["retry at once"].in_vain(right.recovered)
    first, second = rushes["fixed pause"].load(2 * right.recovered, bins=2)
    apart, close = (rushes[name].spread(4) for name in (RIGHT, "backoff"))  # pauses are long by the fourth attempt
    claim = partial(claim_rush, run, rushed)
    text = "no retry: most sagas give up on a step that the service still completes a moment later"
    claim("no retry", text, done > most, f"{done} done after they gave up")
    text = "retry at once: the service keeps answering calls that nobody waits for any more"
    claim("retry at once", text, vain > 0.9, f"in the second half, {vain:.0%} of the answers came to nobody")
    text = "a fixed pause keeps up the load that brought the service down"
    down = len(rushes["fixed pause"].served) < most
    claim("fixed pause", text, down and second > first / 2, f"first half {first:.0f} calls/s, second {second:.0f}")
    text = "backoff alone: whoever failed together comes back together, and waits longer"
    late = rushes["backoff"].recovered > 1.1 * right.recovered
    claim("backoff", text, late and close < apart / 2, f"all fourth attempts within {1000 * close:.0f} ms")
    text = "backoff and jitter: calls spread, the service recovers, and every saga is served"
    fact = f"all fourth attempts within {1000 * apart:.0f} ms, the last saga served after {right.recovered:.1f} s"
    claim(RIGHT, text, len(right.served) == right.sagas and apart > 2 * close, fact)


def claim_rush(run: Run, rushed: Rushed, name: str, text: str, holds: bool, fact: str) -> None:
    seen = rushed.by[name]
    fact = f"{len(seen.served)} of {seen.sagas} served by {len(seen.calls):,} calls; {fact}"
    run.claim(text, holds, topics=[BACKOFF], fact=fact, variant=name, wrong_way=name != RIGHT)


def claim_deadlines(run: Run, waited: retrying.Waited) -> None:
    timed = run.about(f"deadline of {DEADLINE:g} s", topics=[TIMEOUT])
    timed.figure("from the start of a saga to its compensation", waited.seconds, "s")
    timed.claim(
        "a saga whose time is over is compensated, and says why",
        waited.outcomes == {Outcome.COMPENSATED}
        and all("out of time" in reason for reason in waited.reasons)
        and waited.held == 0
        and min(waited.seconds) >= DEADLINE,
        fact=f"{len(waited.seconds)} sagas compensated after {max(waited.seconds):.1f} s at most: {waited.reasons[0]};"
        f" {waited.held} pieces held",
    )
    run.about("no deadline", wrong_way=True, topics=[TIMEOUT]).claim(
        "without a deadline, sagas stay open as long as the service is out of order, and hold what they have",
        waited.open_still == waited.endless and waited.held_still == waited.wanted,
        fact=f"{waited.open_still} of {waited.endless} sagas open, {waited.held_still} pieces held",
    )


if __name__ == "__main__":
    experiment.main()
