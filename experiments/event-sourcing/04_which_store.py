"""Which event store? The same questions and the same load for every store that people choose from.

PostgreSQL as a plain table, a library on Postgres, functions in Postgres, an event store with dynamic boundaries,
Kafka, EventStoreDB, Axon Server: what each can do, how fast it appends and loads, and what Kafka lacks for aggregates:
`KafkaStore.append` knows no expected version, `KafkaOwner.append` checks it.
"""

import json
import runpy
from pathlib import Path

from sourcing.stage import load
from sourcing.stage.load import Candidate
from sourcing.stage.questions import ALL_QUESTIONS, interview
from sourcing.store import Capability
from sourcing.stores import STORES, Address, created

from shared.errors import NotAvailable
from shared.experiment import Experiment, Run, Scale
from shared.servers.server import Endpoint

POSTGRES, LIBRARY, FUNCTIONS, UMADB, KAFKA, OWNER, EVENTSTORE, AXON = STORES
OPTION = "I.2/event-store-options/"
APPEND_ONLY = "I.2/event-store-requirements/append-only-writes"
TOPICS = {
    POSTGRES: OPTION + "postgresql",
    KAFKA: OPTION + "kafka",
    OWNER: OPTION + "kafka",
    EVENTSTORE: OPTION + "eventstoredb",
    AXON: OPTION + "axon-server",
}
experiment = Experiment(
    title="Which store: the same questions, the same load",
    servers=("postgres", "kafka"),
    topics=(
        "I.2/event-store-options/eventstoredb",
        "I.2/event-store-options/axon-server",
        "I.2/event-store-options/kafka",
        "I.2/event-store-options/postgresql",
        "I.2/event-store-requirements/append-only-writes",
    ),
)
TESTS = Path(__file__).parent / "tests"
FAKES = {EVENTSTORE: TESTS / "fake_kurrentdb.py", AXON: TESTS / "fake_axon.py"}


@experiment.run
def main(run: Run) -> None:
    lengths = run.pick(smoke=(10, 100, 1_000), demo=(10, 100, 1_000, 10_000), full=(10, 100, 1_000, 10_000))
    run.parameters.update({"batch": load.BATCH, "events of a stream": load.PER_STREAM, "questions": len(ALL_QUESTIONS)})
    run.parameters["acknowledged by Kafka"] = "in the memory of its brokers; by all others after fsync"
    candidates, absent = gather(run)
    with run.step(f"{len(ALL_QUESTIONS)} questions to each of {len(candidates)} stores"):
        for candidate in candidates.values():
            candidate.problems = interview(candidate.address, f"contract{run.name}")
        passed = {kind: interview_adapter(run, kind) for kind in absent if kind in FAKES}
    for candidate in candidates.values():
        with run.step(f"load {candidate.kind}"):
            measure(run, candidate, lengths)
    note_capabilities(run)
    claim_contracts(run, candidates)
    claim_absent(run, passed)
    claim_append_only(run, candidates, sum(lengths))
    if run.scale is not Scale.SMOKE:  # two rates of a fifth of a second each say nothing
        claim_locks(run, candidates)
    claim_kafka(run, candidates)


def gather(run: Run) -> tuple[dict[str, Candidate], list[str]]:
    """A fresh store of every kind that can be had here, and the kinds that cannot."""
    endpoints: dict[str, Endpoint | None] = dict(run.endpoints)
    handles = {server: run.control(server) for server, endpoint in run.endpoints.items() if endpoint.ours}
    handles["umadb"] = run.own("umadb")  # a log of its own: what is appended to it cannot be removed again
    endpoints["umadb"] = handles["umadb"].endpoint
    for kind in (EVENTSTORE, AXON):
        endpoints[STORES[kind].server] = run.optional(STORES[kind].server, f"questions and load for {kind}")
    candidates = {}
    for number, kind in enumerate(STORES):
        server = STORES[kind].server
        if endpoint := endpoints[server]:
            store = created(kind, endpoint, f"{run.name}_{number}", run.keep)
            try:
                candidates[kind] = Candidate(run.stack_of_things.enter_context(store), handles.get(server))
            except NotAvailable as error:  # message-db's functions are not on every machine to be had
                run.leave_out(f"questions and load for {kind}", str(error))
    return candidates, [kind for kind in STORES if kind not in candidates]


def interview_adapter(run: Run, kind: str) -> int:
    """How many questions the adapter of an absent server answers well, on the fake that the lab's tests have for it."""
    with runpy.run_path(str(FAKES[kind]))["serving"]() as (_, address):
        endpoint = Endpoint(STORES[kind].server, address, "yours")
        return len(ALL_QUESTIONS) - len(interview(Address(kind, endpoint, ""), f"contract{run.name}"))


def measure(run: Run, candidate: Candidate, lengths: tuple[int, ...]) -> None:
    """Streams of several lengths; appends by more and more processes; the same streams again, timed and compared."""
    address, kind = candidate.address, candidate.kind
    load.fill(address, lengths)
    before = load.digest(address, lengths)
    # The owner of Kafka's partition is one process: others have to ask it.
    for writers in (1,) if kind == OWNER else run.pick(smoke=(4,), demo=(1, 8, 32), full=(1, 8, 32)):
        load.append(run, candidate, writers, wrong_way=kind == KAFKA)
    candidate.kept = load.digest(address, lengths) == before
    # Kafka goes through the whole partition for each stream: seconds, whatever the stream's length.
    repeats = 1 if kind in (KAFKA, OWNER) else run.pick(smoke=1, demo=3, full=9)
    most = run.pick(smoke=20_000, demo=100_000, full=300_000)
    result = run.folder / kind / "read.json"
    run.worker(f"{kind}/reader", load.read, address, lengths, repeats, most, result).wait(120)
    candidate.read = json.loads(result.read_text())
    wrong = kind == KAFKA
    for length, times in candidate.read["loads"].items():
        run.figure("load a stream", times, "ms", variant=kind, wrong_way=wrong, x=float(length), x_label="events in it")
    if rate := candidate.read["all"]:
        run.figure("read all", rate, "events/s", variant=kind, wrong_way=wrong, page=load.PAGE)
    shortest = candidate.read["scanned"][str(lengths[0])]
    run.figure(f"records gone through to load {lengths[0]} events", shortest, "", variant=kind, wrong_way=wrong)
    run.figure("memory of a client that has read", candidate.read["memory"], "MB", variant=kind, wrong_way=wrong)
    load.note_server(run, candidate)


def note_capabilities(run: Run) -> None:
    """The table: what each store declares, which the contract has checked."""
    for kind in STORES:
        has = STORES[kind].capabilities
        answers = {str(capability): "yes" if capability in has else "no" for capability in Capability}
        run.figure("capabilities", len(has), f"of {len(Capability)}", variant=kind, wrong_way=kind == KAFKA, **answers)


def claim_contracts(run: Run, candidates: dict[str, Candidate]) -> None:
    for kind, candidate in candidates.items():
        good = len(ALL_QUESTIONS) - len(candidate.problems)
        problems = "".join(f"; {question}: {problem}" for question, problem in candidate.problems.items())
        run.claim(
            f"{kind} does all that it declares, and refuses the rest",
            not candidate.problems,
            topics=[TOPICS.get(kind, APPEND_ONLY)],
            fact=f"{good} of {len(ALL_QUESTIONS)} questions{problems}",
            variant=kind,
        )


def claim_absent(run: Run, passed: dict[str, int]) -> None:
    for kind, good in passed.items():
        run.about(kind, topics=[TOPICS[kind]]).claim(
            f"{kind} does not run here: its adapter keeps the contract on a fake of the wire protocol, which says"
            " nothing of the server itself",
            good == len(ALL_QUESTIONS),
            fact=f"{good} of {len(ALL_QUESTIONS)} questions on the fake",
        )


def claim_append_only(run: Run, candidates: dict[str, Candidate], events: int) -> None:
    run.claim(
        "no writer can change what is there: under all that is appended, every store reads the same events as before",
        all(candidate.kept for candidate in candidates.values()),
        topics=[APPEND_ONLY],
        fact=f"{events:,} events in each of {len(candidates)} stores, by checksum",
    )


def claim_locks(run: Run, candidates: dict[str, Candidate]) -> None:
    writers = max(writers for writers, _ in candidates[POSTGRES].rates)
    free, locked = candidates[POSTGRES].rates[writers, 1], candidates[LIBRARY].rates[writers, 1]
    run.about(POSTGRES, topics=[TOPICS[POSTGRES]]).claim(
        "on PostgreSQL, writers of different streams need not wait for each other: a table lock costs most of the rate",
        free > 1.2 * locked,
        fact=f"{writers} writers: {free:,.0f} events/s, under the lock of {LIBRARY} {locked:,.0f}",
    )


def claim_kafka(run: Run, candidates: dict[str, Candidate]) -> None:
    scanned = int(next(iter(candidates[KAFKA].read["scanned"].values())))
    run.about(KAFKA, wrong_way=True, topics=[TOPICS[KAFKA]]).claim(
        "Kafka finds no stream: who loads one reads the whole partition",
        scanned > 100 * 10,
        fact=f"{scanned:,} records read for 10 events",
    )
    store = candidates[KAFKA].address.open()
    accepted, balance = load.withdraw_at_once(store, f"{run.name}", 100, expected=False)
    store.close()
    run.about(KAFKA, wrong_way=True, topics=[TOPICS[KAFKA]]).claim(
        "Kafka checks no version: two that decide by the same state both write, and the account goes below zero",
        accepted == 2 and balance < 0,
        fact=f"{accepted} withdrawals of 100 from 100, balance {balance}",
    )
    owner = candidates[OWNER].address.open()
    accepted, balance = load.withdraw_at_once(owner, f"{run.name}", 100, expected=True)
    owner.close()
    run.about(OWNER, topics=[TOPICS[KAFKA]]).claim(
        "one owner of the partition, fenced by its transactional id, can check: the second withdrawal is refused",
        (accepted, balance) == (1, 0),
        fact=f"{accepted} withdrawal of 100 from 100, balance {balance}",
    )


if __name__ == "__main__":
    experiment.main()
