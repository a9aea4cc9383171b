"""Whether an outbox can be read in the order of its aggregates: a check of the rows that are there, and of the table.

Relays that read the table publish an aggregate's events in the order in which they were inserted; those of the log in
that of the commits, each as it was inserted. Both is the aggregate's own order and number only where its lock is taken
first. The numbers show it, where writers give any.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from shared.postgres import Connection

EXAMPLES = 3
# Events that have a number. The window functions run in Postgres: no row comes here but the examples.
NUMBERED = """
with numbered as (
    select aggregate_type || ' ' || aggregate_id as aggregate, sequence, position,
           max(sequence) over (order_of_rows rows between unbounded preceding and 1 preceding) as before,
           lead(sequence) over (partition by aggregate_type, aggregate_id order by sequence) as next
    from outbox where sequence > 0 and (%(days)s::int is null or created_at > now() - make_interval(days => %(days)s))
    window order_of_rows as (partition by aggregate_type, aggregate_id order by position)
)
"""
LATE = """
select count(*) over (),
       format('%%s: number %%s behind number %%s, at position %%s', aggregate, sequence, before, position)
from numbered where sequence < before order by position limit %(examples)s
"""
TWICE = """
select count(*) over (), format('%%s: number %%s, %%s times', aggregate, sequence, count(*))
from numbered group by aggregate, sequence having count(*) > 1 order by min(position) limit %(examples)s
"""
GAPS = """
select count(*) over (), format('%%s: from number %%s to %%s', aggregate, sequence, next)
from numbered where next > sequence + 1 order by position limit %(examples)s
"""
LATE_REMEDY = """Relays that read the table publish them in this order. Have the aggregate's lock (update its row, or
  select it for update) before the event is inserted. One that was parked and put back is late, too."""
TWICE_REMEDY = "Consumers drop the second one as a duplicate. Draw the number when you have the aggregate's lock."
GAPS_REMEDY = """Consumers that wait for the next number wait for ever. Look for parked events (`lab outbox parked`),
  and for numbers drawn from a sequence, which a rollback does not give back."""
CACHED_REMEDY = """A session may insert below what another one has committed: what is read by position is out of order.
  Say: alter table outbox alter position set cache 1"""
COLUMNS_REMEDY = """A row may have its position before its transaction has a number, and the cursor may pass it. Make
  the table with xid first, as outbox/schema.sql does."""
CACHED = """
select seqcache from pg_sequence
where seqrelid = pg_get_serial_sequence('outbox', 'position')::regclass and seqcache > 1
"""
COLUMNS = """
select from pg_attribute as xid join pg_attribute as place using (attrelid)
where attrelid = 'outbox'::regclass and xid.attname = 'xid' and place.attname = 'position' and xid.attnum > place.attnum
"""


@dataclass(frozen=True)
class Finding:
    """What was found how often, with the first examples, and what to do about it."""

    what: str
    count: int
    remedy: str
    examples: tuple[str, ...] = ()
    fault: bool = True  # False: worth a look, and no fault of itself

    def __str__(self) -> str:
        """As an operator wants to read it."""
        shown = "".join(f"\n    {example}" for example in self.examples)
        more = f"\n    and {self.count - len(self.examples):,} more" if self.count > len(self.examples) > 0 else ""
        return f"{self.what}: {self.count:,}{shown}{more}\n  {self.remedy}"


def check(connection: Connection, days: int | None = None) -> list[Finding]:
    """What is wrong, or worth a look, with the rows of the last `days` days, or with all; and with the table."""
    return [*_of_table(connection), *_of_rows(connection, days)]


def _of_rows(connection: Connection, days: int | None) -> Iterator[Finding]:
    for query, what, remedy, fault in (
        (LATE, "events behind a later one of their aggregate", LATE_REMEDY, True),
        (TWICE, "numbers that an aggregate has more than once", TWICE_REMEDY, True),
        (GAPS, "gaps in the numbers of an aggregate", GAPS_REMEDY, False),
    ):
        if found := connection.execute(NUMBERED + query, {"days": days, "examples": EXAMPLES}).fetchall():
            yield Finding(what, found[0][0], remedy, tuple(example for _, example in found), fault)


def _of_table(connection: Connection) -> Iterator[Finding]:
    if row := connection.execute(CACHED).fetchone():
        yield Finding("positions that a session draws at once", row[0], CACHED_REMEDY)
    if connection.execute(COLUMNS).fetchone() is not None:
        yield Finding("columns out of order: xid behind position", 1, COLUMNS_REMEDY)
