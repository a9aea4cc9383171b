"""What experiment 04 measures with: writers and a reader in processes of their own, and two withdrawals at once."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from shared.experiment import Run
from shared.servers.handle import Handle
from shared.usage import Usage
from shared.wait import until
from sourcing.errors import WrongExpectedVersion
from sourcing.event import START, NewEvent, Position, Recorded, data_of
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.store import ANY, Capability, EventStore
from sourcing.stores import Address

BATCH = 100  # events of a batch
NOTE = "x" * 120  # with the rest about 150 bytes of JSON, as a small event has
PER_STREAM = 100  # events that a writer appends to a stream before it begins the next
PAGE = 5_000  # events of a page, when all are read
CATEGORY = "order"


@dataclass
class Candidate:
    """A store that runs here, and what it showed."""

    address: Address
    server: Handle | None  # where it is ours to look at
    problems: Mapping[str, str] = field(default_factory=dict)  # questions that it did not answer well
    rates: dict[tuple[int, int], float] = field(default_factory=dict)  # (writers, batch) -> events per second
    read: dict[str, Any] = field(default_factory=dict)  # what `read` wrote
    kept: bool = False  # its streams read the same after the load

    @property
    def kind(self) -> str:
        return self.address.kind


@dataclass(frozen=True)
class Slot:
    """When to append, by the clock that all processes share (time.monotonic), and how many events at once."""

    batch: int
    start: float
    seconds: float


def event(number: int) -> NewEvent:
    return NewEvent("LineAdded", {"product": number, "quantity": 1, "cents": 995, "note": NOTE})


def write(address: Address, name: str, ready: Path, go: Path, result: Path) -> None:
    """A process: open the store, append a little, wait for the windows in `go`; `result` gets each one's count."""
    store = address.open()
    writer = Writer(store, f"{CATEGORY}-{address.space}.{name}")
    writer.append(1)
    writer.append(2)  # Kafka's transactions have a start of their own
    ready.touch()
    until("the windows", go.exists)
    windows = [Slot(**fields) for fields in json.loads(go.read_text())]
    counts = []
    for window in windows:
        time.sleep(max(0.0, window.start - time.monotonic()))
        end, count = window.start + window.seconds, 0
        while time.monotonic() < end:
            writer.append(window.batch)
            count += window.batch
        counts.append(count)
    result.write_text(json.dumps(counts))
    store.close()


def append(run: Run, candidate: Candidate, writers: int, wrong_way: bool) -> None:
    """So many processes append at once, each to streams of its own: first single events, then batches."""
    kind, seconds = candidate.kind, run.pick(smoke=0.2, demo=0.4, full=1.0)
    about = run.about(kind, wrong_way=wrong_way)
    folder = run.folder / kind / str(writers)
    folder.mkdir(parents=True)
    names = [f"w{writers}.{number}" for number in range(writers)]
    go = folder / "go"
    processes = [
        run.worker(
            *(f"{kind}/{name}", write, candidate.address, name),
            *(folder / f"{name}.ready", go, folder / f"{name}.json"),
        )
        for name in names
    ]
    until(f"{writers} writers to be ready", lambda: all((folder / f"{name}.ready").exists() for name in names))
    now = time.monotonic() + 0.1
    windows = [Slot(1, now, seconds), Slot(BATCH, now + 1.2 * seconds + 0.1, seconds)]
    half = folder / "windows"
    half.write_text(json.dumps([asdict(window) for window in windows]))
    half.rename(go)
    for process in processes:
        process.wait(120)
    counts = [json.loads((folder / f"{name}.json").read_text()) for name in names]
    for index, (window, name) in enumerate(zip(windows, ("one by one", f"in batches of {BATCH}"), strict=True)):
        rate = sum(count[index] for count in counts) / seconds
        candidate.rates[writers, window.batch] = rate
        about.figure(f"appends {name}", rate, "events/s", x=float(writers), x_label="writers")


def note_server(run: Run, candidate: Candidate) -> None:
    """What the server's processes take after the load."""
    if candidate.server and candidate.server.record.processes:  # none where it runs in a container
        used = Usage.of(process.pid for process in candidate.server.record.processes)
        name, megabytes = candidate.server.name, used.memory
        run.figure("memory of the server after the load", megabytes, "MB", variant=candidate.kind, server=name)


class Writer:
    """Appends so many events to streams of its own, each under the version that it knows, where the store can."""

    def __init__(self, store: EventStore, prefix: str) -> None:
        self.store, self.prefix = store, prefix
        self.exact = Capability.EXPECTED_VERSION in store.capabilities
        self.stream, self.version, self.streams = "", PER_STREAM, 0

    def append(self, count: int) -> None:
        if self.version >= PER_STREAM:
            self.streams += 1
            self.stream, self.version = f"{self.prefix}.{self.streams}", 0
        new = [event(self.version + number) for number in range(count)]
        self.store.append(self.stream, new, self.version if self.exact else ANY)
        self.version += count


def fill(address: Address, lengths: Sequence[int]) -> None:
    """A stream of each length, in the batches that a copy of old data would use."""
    store = address.open()
    for length in lengths:
        for first in range(0, length, 100):
            store.append(named(address, length), [event(first + n) for n in range(min(100, length - first))])
    store.close()


def named(address: Address, length: int) -> str:
    return f"{CATEGORY}-{address.space}.of.{length}"


def read(address: Address, lengths: Sequence[int], repeats: int, most: int, result: Path) -> None:
    """A process: load each stream, decoded, several times; then read all there is, or `most`.

    `result` is {"loads": {length: [ms]}, "scanned": {length: records that were gone through}, "all": events per second
    or 0, "memory": MB}.
    """
    store = address.open()
    loads: dict[int, list[float]] = {}
    scanned: dict[int, int] = {}
    for length in lengths:
        loads[length] = [_load(store, named(address, length), length) for _ in range(repeats + 1)][
            1:
        ]  # the first one warms up
        scanned[length] = getattr(store, "scanned", length)
    rate = read_all(store, most)
    own = psutil.Process().memory_full_info().uss / 1e6  # pages that are this process's alone: what the client takes
    result.write_text(json.dumps({"loads": loads, "scanned": scanned, "all": rate, "memory": own}))
    store.close()


def _load(store: EventStore, stream: str, length: int) -> float:
    began = time.perf_counter()
    count = sum(1 for found in store.read(stream) if data_of(found))
    if count != length:
        raise ValueError(f"{store.name} read {count} of {length} events")
    return (time.perf_counter() - began) * 1000


def read_all(store: EventStore, most: int) -> float:
    """Events per second, not decoded; 0 where there is no order to read all by."""
    after, count, began = START, 0, time.perf_counter()
    while count < most and (page := next_page(store, after)):
        count += len(page)
        after = page[-1].place
    return count / (time.perf_counter() - began)


def next_page(store: EventStore, after: Position) -> Sequence[Recorded]:
    """The next events of all; of the category that holds them, in a store whose order is by category."""
    if Capability.READ_ALL in store.capabilities:
        return store.read_all(after, PAGE)
    in_category = getattr(store, "read_category", None)
    return list(in_category(CATEGORY, after, PAGE)) if in_category else []


def digest(address: Address, lengths: Sequence[int]) -> str:
    """A checksum of all that these streams hold: versions, ids and bytes."""
    store, sum_ = address.open(), hashlib.sha256()
    for length in lengths:
        for found in store.read(named(address, length)):
            sum_.update(repr((found.stream, found.version, found.type, found.id, found.data)).encode())
    store.close()
    return sum_.hexdigest()


def withdraw_at_once(store: EventStore, ident: str, cents: int, expected: bool) -> tuple[int, int]:
    """Two desks load the same account, decide by the same balance, and append one after the other.

    With `expected`, each says which version it saw. Returns (withdrawals that were accepted, balance after them).
    """
    repository = Repository(store, Account)
    opened = [NewEvent("AccountOpened", {"owner": "ann"}), NewEvent("Deposited", {"cents": cents})]
    store.append(Account(ident).stream, opened)
    desks, accepted = [repository.load(ident), repository.load(ident)], 0
    for desk in desks:
        desk.withdraw(cents)
        accepted += _accepted(store, desk, expected)
    return accepted, repository.load(ident).balance


def _accepted(store: EventStore, desk: Account, expected: bool) -> bool:
    try:
        store.append(desk.stream, desk.uncommitted, desk.version if expected else ANY)
    except WrongExpectedVersion:
        return False
    return True
