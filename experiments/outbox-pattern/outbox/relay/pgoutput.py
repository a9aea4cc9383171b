"""Postgres' logical replication stream, as far as an outbox needs it: inserts and commits of one table.

Formats after the PostgreSQL documentation, "Streaming Replication Protocol" and "Logical Replication Message Formats"
(protocol version 1). Columns come as text, in the order in which the publication lists them.
"""

import struct

# Seconds from 1970 to 2000, where Postgres' clock begins.
EPOCH = 946_684_800
_KEEPALIVE = struct.Struct("!QQB")
_COMMIT = struct.Struct("!BQQQ")
_STATUS = struct.Struct("!cQQQQB")
_LENGTH = struct.Struct("!I")
HEADER = 25  # bytes before the payload of an XLogData message: 'w', start, end, clock


def is_data(message: bytes) -> bool:
    """Whether it is XLogData, and not a keepalive."""
    return message[0] == ord("w")


def keepalive(message: bytes) -> tuple[int, bool]:
    """A keepalive's (end of the log, whether an answer is wanted)."""
    end, _, reply = _KEEPALIVE.unpack_from(message, 1)
    return end, bool(reply)


def commit_end(message: bytes) -> int:
    """The log position after a commit message: all up to it may be confirmed. 0 for any other message."""
    if message[HEADER] != ord("C"):
        return 0
    return int(_COMMIT.unpack_from(message, HEADER + 1)[2])


def insert(message: bytes) -> list[bytes] | None:
    """The column values of an insert; None for any other message. A null is an empty value."""
    if message[HEADER] != 73:  # 'I', oid (4), 'N', number of columns (2), then the columns
        return None
    values, at, end = [], HEADER + 8, len(message)
    unpack = _LENGTH.unpack_from
    while at < end:
        if message[at] == 116:  # 't', length (4), value
            start = at + 5
            at = start + unpack(message, at + 1)[0]
            values.append(message[start:at])
        else:  # 'n'
            at += 1
            values.append(b"")
    return values


def status(confirmed: int, clock: float) -> bytes:
    """A standby status update: everything before `confirmed` is safe with us, and need not be kept or sent again."""
    return _STATUS.pack(b"r", confirmed, confirmed, confirmed, int((clock - EPOCH) * 1_000_000), 0)


def lsn(text: str) -> int:
    """A log position from its text, such as 0/1A2B3C4D."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)
