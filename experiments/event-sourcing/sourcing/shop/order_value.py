"""The value of all that was ever put on an order: a read model that needs prices, and finds them in the events."""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from shared.postgres import Connection
from sourcing.projection import Change, Projection
from sourcing.shop.read_models import LIFE, columns


class OrderValue(Projection):
    """One row per order. The price was asked for once, by the command, and its answer is a part of the event."""

    name: ClassVar[str] = "order_value"
    tables: ClassVar[tuple[str, ...]] = ("order_value",)
    schema: ClassVar[str] = "create table order_value (order_id text primary key, cents bigint not null)"
    category: ClassVar[str] = "order"
    types: ClassVar[frozenset[str]] = LIFE

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        values: Counter[str] = Counter()
        for change in changes:
            if change.type == "LineAdded":
                values[change.event.stream] += change.data["quantity"] * self.cents(change)
        if values:
            add = f"""
            insert into {self.name} as known select * from unnest(%s::text[], %s::bigint[])
            on conflict (order_id) do update set cents = known.cents + excluded.cents
            """  # noqa: S608
            connection.execute(add, columns(values.items()), prepare=True)

    def cents(self, change: Change) -> int:
        """The price of one."""
        return int(change.data["cents"])
