"""A trial of one way to orchestrate: services, orchestrator, topics and history of its own, and processes to kill."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import msgspec

from saga.messaging import Topics
from saga.orchestrator.definition import Definition, Retry, read, timed
from saga.orchestrator.machine import Status, Verb
from saga.orchestrator.office import Office, client
from saga.orchestrator.operator import tell
from saga.orchestrator.shares import each_reads_its_own
from saga.orchestrator.store import create, publish
from saga.orchestrator.worker import Orchestrator
from saga.order import STEPS, UNDO, Order, orders
from saga.order import Action as Did
from saga.services.host import prepare
from saga.services.invariant import Ending, Standing, judge
from saga.services.shop import SERVICES, Shop
from saga.stage.engines.own import ENDED
from saga.stage.fates import KIND, Fate, FatedShop, Fates, open_shop
from saga.stage.killing import RecordedKill
from saga.stage.processes import RecordedOutlet, host, work, work_in_memory
from saga.transport import Place
from saga.windows import HostWindow, WorkerWindow
from saga.wrong.orchestrating import MemoryStore
from shared import kafka
from shared.about import About
from shared.faults import Faults
from shared.history import Action, History, Recorder
from shared.postgres import connect
from shared.run import Run
from shared.wait import until
from shared.worker import Worker

TWICE = "select saga, note from saga_log where note like '% done: %' group by saga, note having count(*) > 1"
NTH = 2  # a window is passed so often before the kill: by then sagas are under way


@dataclass
class Trial:
    """Made by `set_up`."""

    run: Run
    name: str
    shop: FatedShop
    office: Office
    definition: Definition
    client: Recorder
    rounds: list[list[Order]] = field(default_factory=list)
    hosted: Shop | None = None  # a shop in place of its own for hosts that are started from now on
    standing: Standing = field(default_factory=lambda: Standing({}, [], []))  # when it is closed
    history: History = field(default_factory=lambda: History(()))  # when it is judged

    @property
    def path(self) -> Path:
        return self.run.history_file(self.name)

    @property
    def sagas(self) -> list[str]:
        return [order.id for orders in self.rounds for order in orders]

    def next_orders(self, count: int) -> list[Order]:
        """The orders of a new round."""
        prefix = f"{self.name}-{len(self.rounds)}"
        self.rounds.append(list(orders(self.run.seed, count, self.shop.world, prefix)))
        return self.rounds[-1]

    def begin(self, count: int, definition: Definition | None = None) -> None:
        """Begin the sagas of a new round."""
        outlet = RecordedOutlet(self.client, self.office.broker)
        with client(self.office, definition or self.definition, outlet) as beginner:
            for order in self.next_orders(count):
                beginner.start(order)

    def run_into(self, victim: Worker, count: int) -> None:
        """Begin a new round, and return when the process has come to the window in which it is killed.

        Nothing begins before every worker reads its own share: another would do the work of one that is just coming,
        which then never gets there. Sagas of the round before may have it killed earlier.
        """
        with connect(self.office.conninfo) as connection:
            until(
                "every worker to read its share",
                lambda: not victim.alive() or each_reads_its_own(connection, self.office.workers),
            )
        self.begin(count)
        victim.wait()

    def await_waiting(self, topic: str) -> None:
        """As many messages as sagas were begun wait in the topic: who reads them has all of the last round at once."""
        until(f"{topic} to fill", lambda: sum(kafka.end_offsets(self.office.broker, topic).values()) >= len(self.sagas))

    def worker(
        self,
        number: int = 0,
        window: WorkerWindow | None = None,
        nth: int = NTH,
        kind: type[Orchestrator] = Orchestrator,
    ) -> Worker:
        """A started worker, to be killed in a window if there is one."""
        kill = RecordedKill(window, nth=nth, history=self.path, process=f"worker-{number}") if window else None
        name = f"{self.name}-worker-{number}"
        return self.run.worker(name, work, self.office, number, kill, self.path, kind)

    def memory_worker(self, store: type[MemoryStore], count: int, window: WorkerWindow) -> Worker:
        """A started worker that has the sagas of a new round in its memory."""
        kill = RecordedKill(window, nth=NTH, history=self.path, process="worker-0")
        arguments = (self.office, self.definition, self.next_orders(count), kill, self.path, store)
        return self.run.worker(f"{self.name}-worker-0", work_in_memory, *arguments)

    def host(self, window: HostWindow | None = None, services: tuple[str, ...] = SERVICES, nth: int = NTH) -> Worker:
        """A started host of services, to be killed in a window if there is one."""
        kill = RecordedKill(window, nth=nth, history=self.path, process=" and ".join(services)) if window else None
        office, name = self.office, f"{self.name}-host-{'-'.join(services)}"
        arguments = (self.hosted or self.shop, office.topics, office.broker, services, kill, self.path)
        return self.run.worker(name, host, *arguments)

    def await_end(self) -> None:
        """Every saga that was begun has ended, or waits for an operator, and every reply is read."""
        sagas = self.sagas
        with connect(self.office.conninfo) as connection, connection.cursor() as cursor:
            until(f"{len(sagas)} sagas to end", lambda: cursor.execute(ENDED, [sagas]).rowcount == len(sagas))
        self.await_read([self.office.topics.replies])

    def await_read(self, topics: Sequence[str]) -> None:
        """Somebody has read every record of these topics."""
        until("every message to be read", lambda: not self._unread(topics))

    def repeat(self, topic: str) -> int:
        """Send the whole topic once more, under the same ids; returns how many messages that are."""
        producer, messages = kafka.producer(self.office.broker), kafka.read_all(self.office.broker, topic)
        for message in messages:
            producer.produce(topic, message.value(), message.key(), headers=message.headers())
        producer.flush()
        return len(messages)

    def close(self, *processes: Worker) -> Standing:
        """When all commands are read, stop the processes, and look what became of the orders."""
        self.await_read([*self.office.topics.commands.values()])
        for process in processes:
            process.stop()
        self.standing = judge(self.shop)
        return self.standing

    def judge(self, about: About, fault: str) -> History:
        """Its history, judged as one of this variant."""
        self.history = about.judge(self.name, fault)
        return self.history

    def broken(self) -> list[int]:
        """How many orders of each round something is wrong with."""
        return [broken(self.standing, made) for made in self.rounds]

    def note_orders(self, about: About, windows: Iterable[str]) -> int:
        """A figure for each round, which had this window; how many orders there are in all that are not right."""
        for window, count in zip(windows, found := self.broken(), strict=True):
            about.figure("orders inconsistent", count, "orders", x=window, x_label="killed")
        return sum(found)

    # What the orchestrator's own tables say.

    def ask(self, query: LiteralString) -> list[tuple[Any, ...]]:
        with connect(self.office.conninfo) as connection:
            return connection.execute(query).fetchall()

    def statuses(self) -> dict[str, Status]:
        return {saga: Status(status) for saga, status in self.ask("select id, status from sagas")}

    def agreeing(self) -> list[str]:
        """The sagas of which all services say what the table says. One that was refused at once is in no service."""
        ends = {saga: self.standing.endings.get(saga, Ending.COMPENSATED) for saga in self.statuses()}
        return [saga for saga, status in self.statuses().items() if ends[saga] == SAYS.get(status)]

    def out_of_order(self) -> list[str]:
        """The sagas whose steps were not asked for in the order of the definition, or not undone in reverse."""
        undone = {saga: status is Status.COMPENSATED for saga, status in self.statuses().items()}
        return out_of_order(self.history, undone)

    def ignored(self) -> int:
        """How many answers were noted that nobody waited for."""
        [(count,)] = self.ask("select count(*) from saga_log where note like '% ignored: %'")
        return int(count)

    def taken_twice(self) -> list[tuple[Any, ...]]:
        """Turns of a saga that were taken more than once."""
        return self.ask(TWICE)

    def undo_all(self) -> None:
        """The operator has every saga undone."""
        with connect(self.office.conninfo) as connection:
            for saga in self.sagas:
                tell(connection, saga, Verb.COMPENSATE)

    def begin_impatient(self, count: int) -> None:
        """Begin sagas whose steps wait for an answer for no time worth mentioning."""
        with connect(self.office.conninfo) as connection:
            publish(connection, IMPATIENT)
        self.begin(count, IMPATIENT)

    def await_given_up(self, count: int) -> None:
        """So many of the impatient ones are on their way back."""
        query = "select count(*) from sagas where version = 2 and undoing"  # that of IMPATIENT
        until("every saga to give up", lambda: self.ask(query) == [(count,)])

    def stand_still(self, host: Worker, count: int) -> None:
        """SIGSTOP of the host until every new saga is out of attempts; then it does all that it was asked, late."""
        with Faults(self.run.recorder(self.name, "experiment")).paused(host):
            self.begin_impatient(count)
            self.await_given_up(count)

    def lost_answers(self) -> list[str]:
        """The requests whose first answer was lost, by schedule."""
        with connect(self.office.conninfo) as connection:
            asked = {saga: text.split() for saga, text in connection.execute("select id, asked from sagas").fetchall()}
        return [
            f"{order.id}:{action}"
            for orders in self.rounds
            for order in orders
            for action in asked[order.id]
            if self.shop.fates.of(order, Did(action)) is Fate.ANSWER_LOST
        ]

    def _unread(self, topics: Sequence[str]) -> list[Place]:
        read: dict[Place, int] = {}
        for op in History.read(self.path).of(Action.DELIVER):
            read[op.topic, op.partition] = max(op.offset + 1, read.get((op.topic, op.partition), 0))
        ends = {(topic, p): end for topic in topics for p, end in kafka.end_offsets(self.office.broker, topic).items()}
        return [place for place, end in ends.items() if read.get(place, 0) < end]


# Where no answer is lost: what comes twice does so by the kill, not by a time-out.
PATIENT = timed(read(), attempt=60.0, retry=Retry(), whole=600.0)
OFTEN = Retry(attempts=60, first=0.05, longest=0.5)  # no step is given up because the machine stands still
IMPATIENT = msgspec.structs.replace(
    timed(read(), attempt=0.1, retry=Retry(attempts=2, first=0.02), whole=60.0), version=2, undo_timeout=1.0
)
SAYS = {Status.COMPLETED: Ending.COMPLETE, Status.COMPENSATED: Ending.COMPENSATED}


def shared_by_two(run: Run, name: str, patience: float, fates: Fates = KIND) -> Trial:
    """For two workers; after so many seconds, a step is asked for again."""
    return set_up(run, name, timed(read(), patience, OFTEN, 120.0), fates, workers=2)


def set_up(run: Run, name: str, definition: Definition = PATIENT, fates: Fates = KIND, workers: int = 1) -> Trial:
    """Everything but processes. It is gone at the end of the run."""
    shop = open_shop(run, name, fates)
    prepare(shop)
    conninfo = run.schema(f"_{name}_office")
    create(conninfo, definition)
    topics = Topics(f"{run.name}.{name}")
    topics.create(run.endpoints["kafka"], partitions=2 * workers)
    office = Office(conninfo, run.endpoints["kafka"], topics, workers)
    return Trial(run, name, shop, office, definition, run.recorder(name, "client"))


def recoveries(history: History) -> dict[str, float]:
    """Window of a kill -> seconds until whoever came after the process that was killed had read its first message."""
    found = {}
    for fault in history.faults:
        after = (op.at for op in history.of(Action.DELIVER) if op.process == fault.process and op.at > fault.at)
        if at := next(after, None):  # none came where another has read on in its place
            found[fault.note.removeprefix("SIGKILL ")] = (at - fault.at) / 1e9
    return found


def broken(standing: Standing, orders: Sequence[Order]) -> int:
    """How many of these orders something is wrong with."""
    return sum(any(said.startswith(f"{order.id}:") for said in standing.violations) for order in orders)


def out_of_order(history: History, compensated: Mapping[str, bool]) -> list[str]:
    """Of these sagas, which were undone or not, those whose commands came to the services in a wrong order.

    What counts is the first time that a service reads a command, and what it then did: the hosts tell, not the workers.
    """
    read, done = defaultdict[str, list[Did]](list), defaultdict[str, set[Did]](set)
    for op in history.ops:
        request = op.value.partition("#")[0]
        did = Did(request.rpartition(":")[2]) if request.startswith(f"{op.key}:") else None
        if did and op.action is Action.EFFECT:
            done[op.key].add(did)
        elif did and op.action is Action.DELIVER and not op.value.endswith("/answer") and did not in read[op.key]:
            read[op.key].append(did)
    return [saga for saga, undone in compensated.items() if not in_order(read[saga], done[saga], undone)]


def in_order(read: Sequence[Did], done: Collection[Did], compensated: bool) -> bool:
    """Whether a saga's commands, in the order in which they first came, are its steps, and then what undoes them.

    Each step that was begun has to be undone, in reverse; the last may be left out where no service did it: it was
    refused. Where its answer did not come in time, nobody knew, and it was undone as well.
    """
    begun = [action for action in read if action in STEPS]
    if not begun or begun != list(STEPS[: len(begun)]) or list(read[: len(begun)]) != begun:
        return False
    undone, undoing = list(read[len(begun) :]), [UNDO[step] for step in reversed(begun)]
    if not compensated:
        return len(begun) == len(STEPS) and not undone
    return undone == undoing or (undone == undoing[1:] and begun[-1] not in done)
