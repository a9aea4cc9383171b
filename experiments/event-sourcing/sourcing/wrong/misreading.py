"""How old events are read in a hurry. None of these is right; they are kept to be seen failing."""

from collections.abc import Callable, Iterable

from shared.postgres import Connection
from sourcing.event import Data, Recorded, data_of

# The total of an order in cents, from its stored events.
Total = Callable[[Iterable[Recorded]], int]
# What a tidy mind does with old rows: bring them into today's shape, where they lie.
EDIT = """
update events set schema_version = 3, data = convert_to((
    old - 'price' || jsonb_build_object('cents', ((old->>'price')::numeric * 100)::int, 'currency', 'EUR')
)::text, 'utf8')
from (select stream, version, convert_from(data, 'utf8')::jsonb as old from events
      where type = 'LineAdded' and schema_version = 1) as lines
where events.stream = lines.stream and events.version = lines.version
"""


def newest_only(events: Iterable[Recorded]) -> int:
    """Trusts that everything is in the newest schema."""
    return sum(data["quantity"] * data["cents"] for data in _lines(events))


def with_defaults(events: Iterable[Recorded]) -> int:
    """The KeyError above, made to go away."""
    return sum(data["quantity"] * data.get("cents", 0) for data in _lines(events))


def invoice(events: Iterable[Recorded]) -> int:
    """Asks the data what they are, as every reader of these events has to; this one was written with care."""
    return sum(
        data["quantity"] * (data["cents"] if "cents" in data else round(data["price"] * 100)) for data in _lines(events)
    )


def statistics(events: Iterable[Recorded]) -> int:
    """The same question, answered a second time, by somebody else."""
    return sum(
        data["quantity"] * (data["cents"] if "cents" in data else int(data["price"] * 100)) for data in _lines(events)
    )


def edit_in_place(connection: Connection) -> int:
    """Bring the stored lines of 2019 into today's shape; returns how many rows were changed."""
    return connection.execute(EDIT).rowcount


def _lines(events: Iterable[Recorded]) -> Iterable[Data]:
    return (data_of(event) for event in events if event.type == "LineAdded")
