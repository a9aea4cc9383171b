"""Everything that the event store and what stands on it raise on purpose, naming stream, version and type.

SourcingError                  the root, itself a LabError
├── WrongExpectedVersion       somebody else wrote in between: read again and decide again
├── TransactionTooOld          begun before another one wrote to the stream: roll back, and do all of it again
├── StreamDeleted              the stream ended in a tombstone; its name is never used again
├── StreamNameNotAllowed       a name that not every store could take
├── UnwritableEvent            would not be read back as it is, so it is not stored (also a TypeError)
├── EventTooLarge              above the limit, refused before it is sent
├── EventIdNotAllowed          an id that is no UUID, likewise
├── NotSupported               this store cannot do that; `Capability` says so beforehand
├── OwnershipLost              another process owns the Kafka topic now (stores/kafka_owner.py)
├── BrokenChain                upcasters that do not lead to today's schemas (upcasting.py)
├── FoldDiffers                a rewritten stream that folds to another state (rewriting.py)
├── ProjectionStopped          by policy, at an event that it cannot handle (projection.py)
├── ProjectionReplaced         a newer version of it owns the tables (checkpoint.py)
├── NotClassified              nobody said whether the event type holds personal data (personal.py)
├── VaultError                 WrongMasterKey, BrokenSeal, KeyMissing, SubjectForgotten (vault.py)
└── UnreadableEvent            an event that is there and cannot be used; carries stream, version and type
    ├── UnknownEventType       nobody in this program knows the type
    ├── UndecodablePayload     its bytes are not JSON, or not an object
    ├── SchemaMismatch         decoded, and not what the schema says
    ├── MissingUpcaster        no step leads from its schema version to the current one
    └── VersionGap             a version that should be there is not: the stream was tampered with
"""

from shared.errors import LabError, NotWritable

# What a program's own code raises on data that are not what it takes them for; never what a database raises.
MISFITS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RecursionError)


class SourcingError(LabError):
    """The root of the tree above."""


class WrongExpectedVersion(SourcingError):
    """The stream was not where the writer thought it was. `expected` and `actual` are versions; 0: no stream."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"stream {stream!r}: expected version {expected}, it is at {actual}")
        self.stream, self.expected, self.actual = stream, expected, actual


class TransactionTooOld(SourcingError):
    """The caller's transaction is older than the stream's last event, before which readers would get the new one."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"stream {stream!r} was written by a newer transaction than this one; begin it again")
        self.stream = stream


class StreamDeleted(SourcingError):
    """The stream ended in a tombstone."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"stream {stream!r} was deleted; its name cannot be used again")
        self.stream = stream


class StreamNameNotAllowed(SourcingError):
    """A name that not every store could take."""

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"stream name {stream!r} is not allowed: {reason}")
        self.stream = stream


class EventIdNotAllowed(SourcingError, ValueError):
    """An id that is no UUID."""

    def __init__(self, stream: str, type_: str, ident: object) -> None:
        super().__init__(f"stream {stream!r}: the id of an event {type_!r} is no UUID: {ident!r}")
        self.stream, self.type, self.id = stream, type_, ident


class UnwritableEvent(SourcingError, NotWritable):
    """Data or metadata that would not be read back equal; the problem says where in them."""

    def __init__(self, stream: str, type_: str, problem: str) -> None:
        super().__init__(f"stream {stream!r}: an event {type_!r} cannot be written: {problem}")
        self.stream, self.type, self.problem = stream, type_, problem


class EventTooLarge(SourcingError):
    """Above the limit. `size` and `limit` in bytes."""

    def __init__(self, stream: str, type_: str, size: int, limit: int) -> None:
        super().__init__(f"stream {stream!r}: an event {type_!r} of {size:,} bytes is above the limit of {limit:,}")
        self.stream, self.type, self.size, self.limit = stream, type_, size, limit


class NotSupported(SourcingError):
    """This store cannot do that."""

    def __init__(self, store: str, what: str) -> None:
        super().__init__(f"{store} has no {what}")
        self.store = store


class UnreadableEvent(SourcingError):
    """An event that is there and cannot be used."""

    def __init__(self, stream: str, version: int, type_: str, problem: str) -> None:
        super().__init__(f"event {version} of stream {stream!r}, type {type_!r}: {problem}")
        self.stream, self.version, self.type, self.problem = stream, version, type_, problem


class UnknownEventType(UnreadableEvent):
    """Nobody in this program knows the type."""


class UndecodablePayload(UnreadableEvent):
    """Its bytes are not a JSON object."""


class SchemaMismatch(UnreadableEvent):
    """Decoded, and not what the schema says."""


class MissingUpcaster(UnreadableEvent):
    """No step leads from its schema version to the current one."""


class VersionGap(UnreadableEvent):
    """A version that should be there is not."""


def printable(text: str) -> str:
    """A text that may quote what others wrote, as Postgres takes it: no NUL, and no half of a character."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
