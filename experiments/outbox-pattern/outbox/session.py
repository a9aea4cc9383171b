"""The write with SQLAlchemy, ready to use: in the session's transaction, and nowhere else."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from outbox.table import outbox_values
from shared.event import Event

_NAMES = (
    *("aggregate_type", "aggregate_id", "payload", "id", "type", "source", "sequence", "time"),
    *("correlation_id", "causation_id", "content_type"),
)
_COLUMNS = ", ".join(_NAMES)
_INSERT = text(f"insert into outbox ({_COLUMNS}) values ({', '.join(f':{name}' for name in _NAMES)})")  # noqa: S608


def add_event(session: Session, event: Event, aggregate_type: str) -> None:
    """The outbox row in a SQLAlchemy session's transaction. It is sent at once; the commit stays the caller's."""
    session.execute(_INSERT, dict(zip(_NAMES, outbox_values(event, aggregate_type), strict=True)))
