"""An outbox row as the Kafka message it becomes: CloudEvents binary mode, the same from every relay.

Debezium's EventRouter makes the same headers from the same columns (see debezium.py), so that consumers need not know
which relay is at work.
"""

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

COLUMNS = (
    "position, id, aggregate_type, aggregate_id, sequence, type, source, time, "
    "correlation_id, causation_id, content_type, payload"
)


class OutboxRow(NamedTuple):
    """A row of the outbox, in the order of COLUMNS."""

    position: int
    id: UUID
    aggregate_type: str
    aggregate_id: str
    sequence: int
    type: str
    source: str
    time: datetime
    correlation_id: str
    causation_id: str
    content_type: str
    payload: bytes

    def headers(self) -> list[tuple[str, str | bytes | None]]:
        """CloudEvents attributes as Kafka headers; the key carries `partitionkey`."""
        time = self.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        optional = {"ce_correlationid": self.correlation_id, "ce_causationid": self.causation_id}
        return [
            ("ce_specversion", "1.0"),
            ("ce_id", str(self.id)),
            ("ce_type", self.type),
            ("ce_source", self.source),
            ("ce_subject", self.aggregate_id),
            ("ce_time", time),
            ("ce_sequence", str(self.sequence)),
            ("content-type", self.content_type),
            *((name, value) for name, value in optional.items() if value),
        ]
