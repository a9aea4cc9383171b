"""What puts an aggregate's events back into order, and where Java's producers put a key."""

from dataclasses import dataclass, field

from shared.errors import LabError
from shared.event import Event


@dataclass
class InOrder:
    """Releases the events of every aggregate by their sequence numbers, from 1: what comes early is held back.

    What came before is dropped. It remembers in memory only: commit an offset when nothing before it is held.
    """

    limit: int = 1000  # events held at most: a number that never comes must not fill the memory
    next: dict[str, int] = field(default_factory=dict)
    held: dict[str, dict[int, Event]] = field(default_factory=dict)

    def take(self, event: Event) -> list[Event]:
        """The events that may be handled now, in order; one without a number at once.

        Raises LabError when too many wait for one that is missing.
        """
        if not event.sequence:
            return [event]
        expected = self.next.get(event.subject, 1)
        if event.sequence < expected:
            return []
        waiting = self.held.setdefault(event.subject, {})
        waiting[event.sequence] = event
        released = []
        while expected in waiting:
            released.append(waiting.pop(expected))
            expected += 1
        self.next[event.subject] = expected
        if sum(map(len, self.held.values())) > self.limit:
            raise LabError(f"more than {self.limit} events wait; missing: {self.missing()}")
        return released

    def missing(self) -> dict[str, int]:
        """Aggregate -> the number that its held events wait for."""
        return {key: self.next[key] for key, waiting in self.held.items() if waiting}


def java_partition(key: bytes, partitions: int) -> int:
    """Where Java's producer puts a key: murmur2, made positive, modulo the number of partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 with the seed of Kafka's Utils.murmur2, as an unsigned number of 32 bits."""
    m, whole = 0x5BD1E995, len(data) // 4 * 4
    h = 0x9747B28C ^ len(data)
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15
