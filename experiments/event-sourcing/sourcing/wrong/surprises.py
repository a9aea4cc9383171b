"""What producers surprise with, and what careless changes do to a contract."""

from collections.abc import Iterable
from enum import StrEnum

from sourcing.errors import MISFITS, UnreadableEvent
from sourcing.event import Data, NewEvent, Recorded, data_of
from sourcing.evolution.schemas import Weak, shaped
from sourcing.postgres import PostgresStore
from sourcing.repository import Reader, Repository, as_stored
from sourcing.shop.evolved import STRONG, WEAK, EvolvedOrder, upcasters
from sourcing.upcasting import Upcasters

LINE: Data = {"product": "tea", "quantity": 2, "cents": 500, "currency": "EUR"}
TOTAL = 1_000  # cents of the line above, which each producer meant to write
SURPRISES: dict[str, Data] = {
    "field missing": {"product": "tea", "quantity": 2, "amount": 500, "currency": "EUR"},
    "wrong type": {**LINE, "quantity": "2"},
    "field added": {**LINE, "gift": True},
}


class Met(StrEnum):
    """How a surprise was met."""

    RIGHT = "read rightly"
    WRONG = "wrong total, no error"
    CRASH = "stored, and every reader crashes"
    STOPPED = "stopped at the door"


def meet_weak(store: PostgresStore, ident: str, surprise: Data) -> Met:
    """Store what comes, and read it with the weak schema."""
    store.append(f"order-{ident}", [NewEvent("LineAdded", surprise, 3)])
    try:
        total = Repository(store, EvolvedOrder, shaped(upcasters(), WEAK)).load(ident).total
    except MISFITS:
        return Met.CRASH
    return Met.RIGHT if total == TOTAL else Met.WRONG


def meet_strong(store: PostgresStore, ident: str, surprise: Data) -> tuple[Met, str]:
    """Check before the append with the strong schema; returns also what it said."""
    try:
        store.append(f"order-{ident}", STRONG.admit(f"order-{ident}", 0, [NewEvent("LineAdded", surprise, 3)]))
    except UnreadableEvent as error:
        return Met.STOPPED, str(error)
    total = Repository(store, EvolvedOrder, shaped(upcasters(), STRONG)).load(ident).total
    return (Met.RIGHT if total == TOTAL else Met.WRONG), ""


def revenue_in_2021(store: PostgresStore, streams: Iterable[str]) -> int:
    """Cents of all lines, by a program of 2021 with a weak schema: it does not know `currency`, and need not."""
    read = shaped(as_stored, Weak({"LineAdded": {"quantity": 0, "cents": 0}}))
    events = (event for stream in streams for event in store.read(stream) if event.type == "LineAdded")
    return sum(data["quantity"] * data["cents"] for event in events for _, data in read(event))


class CarelessOrder(EvolvedOrder):
    """Today's order after a refactoring: a field has a better name, in the writer and in the reader."""

    def add_line(self, product: str, quantity: int, cents: int, currency: str) -> None:
        self.record("LineAdded", product=product, quantity=quantity, amount=cents, currency=currency)

    def apply(self, type_: str, data: Data) -> None:
        if type_ == "LineAdded":
            data = {**data, "cents": data["amount"]}
        super().apply(type_, data)


def round_trip(store: PostgresStore, make: type[EvolvedOrder]) -> bool:
    """The test that most programs have: what this program writes, this program reads."""
    repository = Repository(store, make)
    written = repository.execute("round-trip", lambda order: order.add_line("tea", 2, 500, "EUR"))
    return written.total == repository.load("round-trip").total == TOTAL


def truncating(event: Recorded) -> Iterable[tuple[str, Data]]:
    """Today's reader, with a step from 2019 that was "simplified"."""
    for type_, data in upcasters()(event):
        old = type_ == "LineAdded" and event.schema_version == 1
        yield type_, {**data, "cents": int(data_of(event)["price"] * 100)} if old else data


def careless() -> dict[str, tuple[Upcasters, Reader, type[EvolvedOrder]]]:
    """Changes that look harmless: what was done -> the steps, the reader and the aggregate after it."""
    steps, without, raised = upcasters(), Upcasters(STRONG.versions), upcasters()
    raised.step("OrderShipped", 1)(dict)
    raised.current["OrderShipped"] = 2
    return {
        "a field renamed": (steps, steps, CarelessOrder),
        "a step that cuts off cents": (steps, truncating, EvolvedOrder),
        "the old steps removed": (without, without, EvolvedOrder),
        "a version raised": (raised, raised, EvolvedOrder),
    }
