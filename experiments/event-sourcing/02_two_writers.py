"""Eight tellers move money on the same account at once: what is lost, what goes below zero, and what does it cost?

The same deposits and withdrawals go into rows (read, change, write; check, then change; select for update) and into
streams (any version; expected version). The balance is compared with the deposits and withdrawals that were
acknowledged to the tellers. Each way is a function with the same arguments: for rows, `read_change_write`,
`check_then_change` and `locked` (wrong/rows.py); for streams, the right one, `Repository.execute`, and `regardless` and
`at_once` (wrong/writers.py).
"""

from sourcing.repository import Repository
from sourcing.stage import tellers
from sourcing.stage.tellers import Result, Rows, Streams, Way, Work, deposit, drain
from sourcing.wrong import rows
from sourcing.wrong.writers import InOneStream, at_once, regardless

from shared.experiment import Experiment, Run, Scale

experiment = Experiment(
    title="Two writers: lost money, and the version that prevents it",
    servers=("postgres",),
    topics=(
        "I.2/event-store-requirements/optimistic-concurrency",
        "I.2/event-store-requirements/stream-per-aggregate",
        "I.2/aggregate-design/invariant-enforcement",
    ),
)
LOSING = Rows("row: read, change, write", rows.read_change_write)
OVERDRAWING = Rows("row: check, then change", rows.check_then_change)
LOCKED = Rows("row: select for update", rows.locked)
ANY = Streams("events: any version", regardless)
EXPECTED = Streams("events: expected version", Repository.execute)
AT_ONCE = Streams("events: retry at once", at_once)
ONE_STREAM = Streams("events: one stream for all", Repository.execute, InOneStream)
WRITERS = 8


@experiment.run
def main(run: Run) -> None:
    each = run.pick(smoke=12, demo=60, full=80)
    opening = run.pick(smoke=2_000, demo=10_000, full=10_000)  # cents; eight withdrawals at once are more than 2,000
    drained = run.pick(smoke=5, demo=20, full=50)
    sizes = run.pick((1, WRITERS), (1, WRITERS), (1, 2, 4, WRITERS))
    run.parameters.update({"writers": WRITERS, "deposits per writer": each, "accounts withdrawn from": drained})
    paying_in = [Work(way, deposit, 1, wrong=way is LOSING) for way in (LOSING, LOCKED, ANY, AT_ONCE)]
    paying_out = [
        Work(way, drain, drained, wrong=way in (OVERDRAWING, ANY)) for way in (OVERDRAWING, LOCKED, ANY, EXPECTED)
    ]
    own = {size: Work(EXPECTED, deposit, size) for size in sizes}
    common = {size: Work(ONE_STREAM, deposit, size, wrong=True) for size in sizes}
    todo = [*paying_in, *paying_out, *own.values(), *common.values()]
    results = tellers.do_all(run, todo, WRITERS, each, opening)
    claim_deposits(run, {work.way: results[work] for work in (*paying_in, own[1], common[1])})
    claim_withdrawals(run, {work: results[work] for work in paying_out})
    claim_retries(run, results[own[1]], results[paying_in[-1]])
    note_streams(run, EXPECTED, {size: results[work] for size, work in own.items()})
    note_streams(run, ONE_STREAM, {size: results[work] for size, work in common.items()})
    claim_streams(run, results[own[WRITERS]], results[common[WRITERS]])


def claim_deposits(run: Run, results: dict[Way, Result]) -> None:
    topics = ["I.2/event-store-requirements/optimistic-concurrency"]
    for way, result in results.items():
        run.about(way.name, wrong_way=way is LOSING).figure("money lost", result.vanished / 100, "euro")
    lost = results[LOSING]
    run.about(LOSING.name, wrong_way=True, topics=topics).claim(
        "read, change, write: deposits that were acknowledged are overwritten, and no error tells of it",
        lost.vanished > 0,
        fact=f"{lost.vanished:,} cents gone of {lost.done:,} deposits",
    )
    for way in (EXPECTED, AT_ONCE, LOCKED):
        result = results[way]
        run.about(way.name, topics=topics if way is not LOCKED else ()).claim(
            f"{way.name}: every deposit is done, and the balance equals to the cent what was acknowledged",
            result.vanished == 0 and result.done == WRITERS * run.parameters["deposits per writer"],
            fact=f"{result.vanished:,} cents gone of {result.done:,} deposits, {result.conflicts:,} conflicts",
        )
    run.about(ANY.name).claim(
        "an event holds a difference: deposits alone lose nothing, even without an expected version",
        results[ANY].vanished == 0 < results[ANY].done,
        fact=f"{results[ANY].done:,} deposits",
    )


def claim_withdrawals(run: Run, results: dict[Work, Result]) -> None:
    topics = ["I.2/aggregate-design/invariant-enforcement", "I.2/event-store-requirements/optimistic-concurrency"]
    texts = {
        OVERDRAWING: "check, then change: several pass the check on the same balance, and it goes below zero",
        ANY: "any version: the aggregate decides on an outdated balance, and the account goes below zero",
        EXPECTED: "expected version: a decision is only written if nothing came in between; no account goes below zero",
        LOCKED: "select for update holds the invariant too, by letting the others wait",
    }
    for work, result in results.items():
        about = run.about(work.way.name, wrong_way=work.wrong, topics=topics if work.way is not LOCKED else ())
        about.figure("accounts below zero", result.overdrawn, "accounts")
        about.claim(
            texts[work.way],
            (result.overdrawn > 0) is work.wrong and result.vanished == 0 and result.done > len(result.balances),
            fact=f"{result.overdrawn} of {len(result.balances)} accounts below zero, lowest balance "
            f"{min(result.balances.values()) / 100:.2f} euro, {result.done:,} withdrawals",
        )


def claim_retries(run: Run, patient: Result, eager: Result) -> None:
    for way, result in ((EXPECTED, patient), (AT_ONCE, eager)):
        about = run.about(way.name)
        about.figure("conflicts per deposit, one hot stream", result.conflicts / result.done, "conflicts")
        about.figure("deposits by eight writers, one hot stream", result.done / result.seconds, "1/s")
    if run.scale is Scale.SMOKE:  # too few deposits: chance decides
        return
    run.about(EXPECTED.name, topics=["I.2/event-store-requirements/optimistic-concurrency"]).claim(
        "writers that wait for a random time after a conflict have fewer conflicts than those that retry at once",
        0 < patient.conflicts < eager.conflicts,
        fact=f"{patient.conflicts:,} conflicts against {eager.conflicts:,}",
    )


def note_streams(run: Run, way: Way, results: dict[int, Result]) -> None:
    about = run.about(way.name, wrong_way=way is ONE_STREAM)
    for accounts, result in results.items():
        values = {"conflicts": result.conflicts / result.done, "1/s": result.done / result.seconds}
        for name, unit in {"conflicts per deposit": "conflicts", "deposits by eight writers": "1/s"}.items():
            about.figure(name, values[unit], unit, x=accounts, x_label="accounts written to")


def claim_streams(run: Run, own: Result, shared: Result) -> None:
    topics = ["I.2/event-store-requirements/stream-per-aggregate"]
    run.about(EXPECTED.name, topics=topics).claim(
        "a stream per aggregate: writers of different accounts never conflict",
        own.conflicts == 0 == own.vanished and own.done == shared.done,
        fact=f"{own.conflicts:,} conflicts among {WRITERS} writers with an account each, {own.done:,} deposits",
    )
    run.about(ONE_STREAM.name, wrong_way=True, topics=topics).claim(
        "all accounts in one stream: writers of different accounts conflict all the time, for nothing",
        shared.conflicts > 0 == shared.vanished,
        fact=f"{shared.conflicts:,} conflicts among {WRITERS} writers with an account each, {shared.done:,} deposits",
    )


if __name__ == "__main__":
    experiment.main()
