"""Eight tellers move money on the same account at once: what is lost, what goes below zero, and what does it cost?

The same deposits and withdrawals go into rows (read, change, write; check, then change; select for update) and into
streams (any version; expected version). The balance is compared with what the tellers were told had been done. The
ways are the functions of wrong/rows.py and wrong/writers.py, and `Repository.execute`.
"""

from multiprocessing import get_context

from sourcing.postgres import create
from sourcing.stage import writers
from sourcing.stage.writers import (
    ANY,
    AT_ONCE,
    EXPECTED,
    LOCKED,
    LOSING,
    ONE_STREAM,
    OVERDRAWING,
    Result,
    Work,
    deposit,
    drain,
)
from sourcing.wrong import rows

from shared import postgres
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
WRITERS = 8


@experiment.run
def main(run: Run) -> None:
    each = run.pick(smoke=12, demo=60, full=80)
    opening = run.pick(smoke=2_000, demo=10_000, full=10_000)  # cents; eight withdrawals at once are more than 2,000
    drained = run.pick(smoke=5, demo=20, full=50)
    sizes = run.pick((1, WRITERS), (1, 2, 4, WRITERS), (1, 2, 4, WRITERS))
    run.parameters.update({"writers": WRITERS, "deposits per writer": each, "accounts withdrawn from": drained})
    todo = [Work(way, deposit, 1) for way in (LOSING, LOCKED, ANY, AT_ONCE)]
    todo += [Work(way, drain, drained) for way in (OVERDRAWING, LOCKED, ANY, EXPECTED)]
    todo += [Work(way, deposit, size) for way in (EXPECTED, ONE_STREAM) for size in sizes]
    results = work(run, todo, each, opening)
    claim_deposits(run, {w.way: r for w, r in results.items() if w.job is deposit and w.accounts == 1})
    claim_withdrawals(run, {w.way: r for w, r in results.items() if w.job is drain})
    claim_retries(run, results[Work(EXPECTED, deposit, 1)], results[Work(AT_ONCE, deposit, 1)])
    for way in (EXPECTED, ONE_STREAM):
        note_streams(run, way, {size: results[Work(way, deposit, size)] for size in sizes})
    claim_streams(run, *(results[Work(way, deposit, WRITERS)] for way in (EXPECTED, ONE_STREAM)))


def work(run: Run, todo: list[Work], each: int, opening: int) -> dict[Work, Result]:
    """All tellers at one piece of work after the other, each from a common start; at scale smoke they must meet."""
    conninfo = run.schema()
    create(conninfo)
    with postgres.connect(conninfo) as connection:
        connection.execute(rows.SCHEMA)
        banks = [writers.open_bank(run, conninfo, number, piece, each, opening) for number, piece in enumerate(todo)]
        barrier = get_context("forkserver").Barrier(WRITERS)  # as the workers are started
        cases = [
            writers.Case(bank, piece.way, piece.job, barrier if run.scale is Scale.SMOKE and piece.collides else None)
            for bank, piece in zip(banks, todo, strict=True)
        ]
        gates = writers.Gates(connection, len(cases) + 1)
        for number in range(WRITERS):
            run.worker(f"teller-{number}", writers.serve, cases, number)
        for number, piece in enumerate(todo):
            gates.await_all(number, WRITERS)
            with run.step(str(piece)):
                gates.open(number)
                gates.await_all(number + 1, WRITERS)
        return {piece: Result.of(connection, bank, piece, opening) for bank, piece in zip(banks, todo, strict=True)}


def claim_deposits(run: Run, results: dict[str, Result]) -> None:
    topics = ["I.2/event-store-requirements/optimistic-concurrency"]
    for way, result in results.items():
        wrong = way == LOSING
        run.figure("money lost", result.vanished / 100, "euro", variant=way, wrong_way=wrong)
    lost = results[LOSING]
    run.about(LOSING, wrong_way=True, topics=topics).claim(
        "read, change, write: deposits that were acknowledged are overwritten, and no error tells of it",
        lost.vanished > 0,
        fact=f"{lost.vanished:,} cents gone of {lost.done:,} deposits",
    )
    for way in (EXPECTED, AT_ONCE, LOCKED):
        result = results[way]
        run.about(way, topics=topics if way != LOCKED else ()).claim(
            "the balance is to the cent what was acknowledged, with every deposit done",
            result.vanished == 0 and result.done == WRITERS * run.parameters["deposits per writer"],
            fact=f"{result.done:,} deposits, {result.conflicts:,} conflicts",
        )
    run.about(ANY).claim(
        "events are differences: deposits alone lose nothing even under any version",
        results[ANY].vanished == 0 < results[ANY].done,
        fact=f"{results[ANY].done:,} deposits",
    )


def claim_withdrawals(run: Run, results: dict[str, Result]) -> None:
    topics = ["I.2/aggregate-design/invariant-enforcement", "I.2/event-store-requirements/optimistic-concurrency"]
    texts = {
        OVERDRAWING: "check, then change: several pass the check on the same balance, and it goes below zero",
        ANY: "events under any version: the aggregate decides on a balance that is gone, and it goes below zero",
        EXPECTED: "a decision is only written if nothing was written since the load: no account is ever below zero",
        LOCKED: "select for update holds the invariant too, by letting the others wait",
    }
    for way, result in results.items():
        wrong = way in writers.WRONG_FOR_WITHDRAWALS
        run.figure("accounts below zero", result.overdrawn, "accounts", variant=way, wrong_way=wrong)
        run.about(way, wrong_way=wrong, topics=topics if way != LOCKED else ()).claim(
            texts[way],
            (result.overdrawn > 0) is wrong and result.vanished == 0 and result.done > len(result.balances),
            fact=f"{result.overdrawn} of {len(result.balances)} accounts below zero, lowest balance "
            f"{min(result.balances.values()) / 100:.2f} euro, {result.done:,} withdrawals",
        )


def claim_retries(run: Run, patient: Result, eager: Result) -> None:
    for way, result in ((EXPECTED, patient), (AT_ONCE, eager)):
        run.figure("conflicts per deposit, one hot stream", result.conflicts / result.done, "conflicts", variant=way)
        run.figure("deposits by eight writers, one hot stream", result.done / result.seconds, "1/s", variant=way)
    if run.scale is Scale.SMOKE:  # too few deposits: chance decides
        return
    run.about(EXPECTED, topics=["I.2/event-store-requirements/optimistic-concurrency"]).claim(
        "writers that wait for a random while after a conflict meet again less often than those that retry at once",
        0 < patient.conflicts < eager.conflicts,
        fact=f"{patient.conflicts:,} conflicts against {eager.conflicts:,}",
    )


def note_streams(run: Run, way: str, results: dict[int, Result]) -> None:
    figures = {"conflicts per deposit": "conflicts", "deposits by eight writers": "1/s"}
    for accounts, result in results.items():
        values = result.conflicts / result.done, result.done / result.seconds
        for (name, unit), value in zip(figures.items(), values, strict=True):
            wrong = way == ONE_STREAM
            run.figure(name, value, unit, variant=way, wrong_way=wrong, x=accounts, x_label="accounts written to")


def claim_streams(run: Run, own: Result, shared: Result) -> None:
    topics = ["I.2/event-store-requirements/stream-per-aggregate"]
    run.about(EXPECTED, topics=topics).claim(
        "a stream per aggregate: writers of different accounts never meet",
        own.conflicts == 0 == own.vanished and own.done == shared.done,
        fact=f"{own.conflicts:,} conflicts among {WRITERS} writers with an account each, {own.done:,} deposits",
    )
    run.about(ONE_STREAM, wrong_way=True, topics=topics).claim(
        "all accounts in one stream: writers of different accounts conflict all the time, for nothing",
        shared.conflicts > 0 == shared.vanished,
        fact=f"{shared.conflicts:,} conflicts among {WRITERS} writers with an account each, {shared.done:,} deposits",
    )


if __name__ == "__main__":
    experiment.main()
