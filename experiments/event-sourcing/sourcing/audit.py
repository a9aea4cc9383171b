"""Who, when, why: what a CRUD row cannot answer and a stream answers by being read.

Correlation ties together all that belongs to one conversation; causation is the step before. Walked backwards, it
leads from any event to the command that began it all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sourcing.event import START, Data, Metadata, Recorded, data_of, metadata_of
from sourcing.store import EventStore


@dataclass(frozen=True)
class Step:
    """One entry of a trail. `causation_id` is the id of an earlier step, or names what came from outside."""

    id: str
    stream: str
    version: int
    at: datetime
    actor: str
    reason: str
    what: str
    data: Data
    correlation_id: str
    causation_id: str

    @property
    def complete(self) -> bool:
        """Whether it says who, why and because of what. When, every event says."""
        return bool(self.actor and self.reason and self.causation_id)


def step(event: Recorded) -> Step:
    """The event as a step. Raises UndecodablePayload."""
    why = metadata_of(event)
    return Step(
        event.id,
        event.stream,
        event.version,
        event.recorded_at,
        why.actor,
        why.reason,
        event.type,
        data_of(event),
        why.correlation_id,
        why.causation_id,
    )


def following(event: Recorded, actor: str, reason: str) -> Metadata:
    """The metadata of what is done because of an event: the same conversation, caused by it."""
    return Metadata(metadata_of(event).correlation_id or event.id, event.id, actor, reason)


def trail(store: EventStore, stream: str) -> list[Step]:
    """All that happened in one stream, oldest first."""
    return [step(event) for event in store.read(stream)]


def conversation(store: EventStore, correlation_id: str) -> list[Step]:
    """All that happened in one conversation, in all streams. Reads the whole store: an audit is rare."""
    return [step(event) for event in everything(store) if metadata_of(event).correlation_id == correlation_id]


def causes(steps: Iterable[Step], last: Step) -> list[Step]:
    """From the step back to the first one, each caused by the next in the list.

    Ends where the cause is none of the steps (it came from outside), or is in the list already (a forged circle).
    """
    by_id = {step.id: step for step in steps}
    found = [last]
    while (cause := by_id.get(found[-1].causation_id)) and cause not in found:
        found.append(cause)
    return found


def everything(store: EventStore) -> Iterator[Recorded]:
    """Every event of a store, page by page."""
    after = START
    while page := store.read_all(after):
        yield from page
        after = page[-1].place
