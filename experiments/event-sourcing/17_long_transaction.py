"""A transaction stays open while others write: which readers stand still for as long, and who has it open?

Three readers follow: `position > last`, which waits for nobody and passes over events (experiment 03), the store's own
(xid, position), and snapshot windows: `by_position`, `PostgresStore.read_all` and `read_window`. The alarm is
`holdback.oldest_writer`.
"""

from sourcing.stage import readers
from sourcing.stage.readers import REPORT, Lags, Query, Spell, by_xid_and_position
from sourcing.windowed import BEGIN, read_window
from sourcing.wrong.positions import by_position

from shared.experiment import Experiment, Run, Scale

TOPICS = ["I.2/event-store-requirements/ordering-guarantees"]
experiment = Experiment(
    title="Global order: the transaction that readers wait for",
    servers=("postgres",),
    topics=tuple(TOPICS),
)
TUTORIAL = Query("position > last", "tutorial", by_position, wrong=True)
PAIR = Query("(xid, position) > last", "pair", by_xid_and_position)
WINDOWS = Query("snapshot windows", "windows", read_window, BEGIN)
FOLLOWED = TUTORIAL, PAIR, WINDOWS
PAUSE = 0.004  # seconds of work at most, before the append and again after it: the transaction is open meanwhile
TELLERS = 2  # who write meanwhile


@experiment.run
def main(run: Run) -> None:
    """A transaction that has written stays open; then one that only reads."""
    spells = run.pick((0.3, 0.6), (0.5, 1.0, 2.0), (0.5, 1.0, 2.0, 4.0, 8.0))
    bank = readers.open_bank(run, 10**6, TELLERS, "_hold")
    following = readers.read_along(run, bank, FOLLOWED, "_hold")
    files = {query: readers.own_history(run, bank, query, "_hold").history for query in FOLLOWED}
    tellers = readers.write_at_once(run, bank, TELLERS, PAUSE)
    seen: dict[float, Spell] = {}
    for seconds in spells:
        with run.step(f"a transaction that has written is open for {seconds:g} s"):
            seen[seconds] = readers.hold(bank, seconds, "insert into notes values ('begun')", files[WINDOWS])
    with run.step(f"a transaction that only reads is open for {spells[-1]:g} s"):
        reading = readers.hold(bank, spells[-1], "select count(*) from events", files[PAIR])
    for worker in (*tellers, *following):
        worker.stop()
    lags = {query: Lags(bank.history, file) for query, file in files.items()}
    claim_price(run, lags, seen)
    claim_no_price(run, lags[WINDOWS], seen)
    claim_reading(run, lags[PAIR], spells[-1], reading)
    claim_alarm(run, seen)


def claim_price(run: Run, lags: dict[Query, Lags], seen: dict[float, Spell]) -> None:
    longest = {(query, s): lags[query].longest(spell) for query in lags for s, spell in seen.items()}
    for (query, seconds), lag in longest.items():
        label = "seconds for which one transaction is open"
        about = run.about(query.name, wrong_way=query.wrong)
        about.figure("longest lag", lag, "s", x=seconds, x_label=label)
    run.about(PAIR.name, topics=TOPICS).claim(
        "the price of (xid, position): readers stand still for as long as any transaction that has written stays open",
        all(longest[PAIR, seconds] > seconds / 2 for seconds in seen),
        fact=", ".join(f"open {seconds:g} s: lag {longest[PAIR, seconds]:.2f} s" for seconds in seen),
    )


def claim_no_price(run: Run, lags: Lags, seen: dict[float, Spell]) -> None:
    """By count, as in `claim_reading`; and where it is open for long enough, by the clock."""
    read = {seconds: lags.meanwhile(spell.began, spell.ended) for seconds, spell in seen.items()}
    longest = max(seen)
    lag = lags.longest(seen[longest])
    run.about(WINDOWS.name, topics=TOPICS).claim(
        "a window waits for nobody: its readers read on while a transaction that has written stays open",
        all(count > TELLERS for count in read.values()) and (run.scale is Scale.SMOKE or lag < longest / 2),
        fact=f"open {longest:g} s: lag {lag:.2f} s, {read[longest]:,} events read meanwhile",
    )


def claim_reading(run: Run, lags: Lags, seconds: float, reading: Spell) -> None:
    """At scale smoke by count: more than the few events whose transactions may be older than the long one."""
    lag, meanwhile = lags.longest(reading), lags.meanwhile(reading.began, reading.ended)
    run.about(PAIR.name, topics=TOPICS).claim(
        "a long transaction that only reads holds no reader back",
        meanwhile > TELLERS if run.scale is Scale.SMOKE else lag < seconds / 2,
        fact=f"open {seconds:g} s: lag {lag:.2f} s",
    )


def claim_alarm(run: Run, seen: dict[float, Spell]) -> None:
    named = {seconds: spell.named for seconds, spell in seen.items()}
    texts = [f"{writer.application}, {writer.state}, {writer.seconds:.1f} s" for writer in named.values() if writer]
    run.about(PAIR.name, topics=TOPICS).claim(
        "one query names the transaction that all wait for, its application, and how long it is open",
        all(writer and writer.application == REPORT and writer.seconds >= s for s, writer in named.items()),
        fact="; ".join(texts),
    )


if __name__ == "__main__":
    experiment.main()
