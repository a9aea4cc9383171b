"""What is claimed of rushes by every policy. `done`: what the service did for those that gave up without a retry."""

from functools import partial

from saga.stage.retrying import RIGHT, Rush
from shared.run import Run

BACKOFF = "I.4/error-handling/retries-with-backoff"


def claim_counts(run: Run, rushes: dict[str, Rush], done: int, charged: int) -> None:
    """What holds however long the machine stands still: of times and rates, nothing."""
    right = rushes[RIGHT]
    text, served = "backoff and jitter: every saga is served", len(right.served)
    claim_rush(run, rushes, RIGHT, text, served == right.sagas, f"{served} sagas")
    text, given_up = "no retry: what sagas give up is done all the same", rushes["no retry"].given_up
    holds = done == len(given_up) > 0 and charged == sum(seen.sagas for seen in rushes.values())
    claim_rush(run, rushes, "no retry", text, holds, f"{done} done after they gave up")


def claim_rushes(run: Run, rushes: dict[str, Rush], done: int, _: int) -> None:
    """What each did until the right one had served all, and in as much time after that."""
    right, most = rushes[RIGHT], rushes[RIGHT].sagas / 2
    vain = rushes["retry at once"].in_vain(right.recovered)
    first, second = rushes["fixed pause"].load(2 * right.recovered, bins=2)
    apart, close = (rushes[name].spread(4) for name in (RIGHT, "backoff"))  # pauses are long by the fourth attempt
    claim = partial(claim_rush, run, rushes)
    text = "no retry: most sagas give up over a step that is done a moment later all the same"
    claim("no retry", text, done > most, f"{done} done after they gave up")
    text = "retry at once: the service does calls that nobody waits for, as long as anybody asks"
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


def claim_rush(run: Run, rushes: dict[str, Rush], name: str, text: str, holds: bool, fact: str) -> None:
    seen = rushes[name]
    fact = f"{len(seen.served)} of {seen.sagas} served by {len(seen.calls):,} calls; {fact}"
    run.claim(text, holds, topics=[BACKOFF], fact=fact, variant=name, wrong_way=name != RIGHT)
