"""Reading on from where one was, by numbers: three wrong ways. Each reads on from the last row that it has read.

Positions are in the order of nextval, transaction ids in the order of first writes, rows appear in the order of
commits, and an aggregate's events follow one another in the order of its lock. No two of these are one order. The right
way is in relay/reading.py: it remembers a snapshot.
"""

from collections.abc import Iterator
from typing import ClassVar

from outbox.relay.message import COLUMNS, Row
from outbox.relay.polling import PollingPublisher
from shared.postgres import Connection

OLDEST = "outbox_xid(pg_snapshot_xmin(pg_current_snapshot()))"  # the number of the oldest open transaction


class ByPosition:
    """WRONG: `where id > last_id order by id`, as tutorials on polling show it.

    It loses. A row appears when its transaction commits: by then a higher position may have been read, and who looks
    above it never sees the row. No error, no kill, nothing to be found in a log.
    """

    after: ClassVar[str] = "position > %(position)s"
    order: ClassVar[str] = "position"

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.position, self.xid = 0, "0"  # of the last row

    def pages(self, limit: int) -> Iterator[list[Row]]:
        """The next rows, `limit` at most, in one page. Its place moves when the caller has dealt with them."""
        query = f"select {COLUMNS} from outbox where {self.after} order by {self.order} limit %(limit)s"  # noqa: S608
        place = {"position": self.position, "xid": self.xid, "limit": limit}
        if rows := self.connection.execute(query, place, prepare=True).fetchall():
            yield rows
            self.position, self.xid = rows[-1][:2]


class BehindOpen(ByPosition):
    """WRONG: the first answer to the losses: read only what is older than every open transaction, still by position.

    It loses, more rarely: who has the lower position may have the higher transaction id, and is not waited for. And it
    waits: one long transaction, anywhere in the cluster, holds back all that is written after it has begun.
    """

    after = f"position > %(position)s and xid < {OLDEST}"


class ByPair(ByPosition):
    """WRONG: the better answer: an order in which no row can appear late, (xid, position) behind open transactions.

    It loses nothing, and it reorders: a transaction has its id from its first write on, and may get the aggregate's
    lock long after a younger one, whose event comes before its own. So the aggregate's later event is read first. And
    it waits, as BehindOpen does.
    """

    after = f"(xid, position) > (%(xid)s::text::xid8, %(position)s) and xid < {OLDEST}"
    order = "xid, position"


class PairRelay(PollingPublisher):
    """WRONG: publishes what ByPair reads. What was read out of order is published so, with a key and by one relay.

    Its place is in its memory: begun anew, it publishes all of the outbox again.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reader = ByPair(self.connection)

    def step(self) -> int:
        """Move one batch. Raises KafkaException when the broker could not be reached; the batch comes again then."""
        moved = 0
        for rows in self.reader.pages(self.batch):
            self.publisher.send(rows)
            self.publisher.flush()
            moved += len(rows)
        return moved
