"""Services whose transactions are taken by hand, step by step in one thread: any interleaving can be had again."""

from outbox.stage.contended import AUDIT, LOCK, SCHEMA
from outbox.table import insert_event
from shared.event import Event
from shared.postgres import Connection

Numbered = tuple[str, int]  # an event, by its order and its number


def open_orders(connection: Connection, orders: list[str]) -> None:
    """Create the orders, none of which has an event yet."""
    connection.execute(SCHEMA)
    connection.cursor().executemany("insert into orders values (%s)", [[order] for order in orders])


class Services:
    """One session each. A transaction begins with its first step; `committed` is what a reader has to find.

    Who would wait for another one's lock does not take the step, since it would keep the thread.
    """

    def __init__(self, sessions: list[Connection], topic: str = "orders") -> None:
        self.sessions = sessions
        self.topic = topic
        self.locked: dict[str, int] = {}  # order -> who has it
        self.open: dict[int, list[Numbered]] = {}  # who is in a transaction -> its events
        self.committed: list[Numbered] = []

    def write(self, who: int) -> None:
        """Something else, which draws the transaction's id."""
        self._in_transaction(who).execute(AUDIT, ["something"])

    def lock(self, who: int, order: str) -> bool:
        """Have the order; False where another one has it."""
        if self.locked.setdefault(order, who) != who:
            return False
        self._in_transaction(who).execute("select from orders where order_id = %s for update", [order])
        return True

    def insert(self, who: int, *orders: str) -> None:
        """The next event of each order, with its lock."""
        for order in orders:
            if self.lock(who, order):
                [(number,)] = self.sessions[who].execute(LOCK, [order]).fetchall()
                event = Event("shop.order.changed", "/shop/orders", order, sequence=number)
                insert_event(self.sessions[who], event, self.topic)
                self.open[who].append((order, number))

    def commit(self, who: int) -> None:
        self.committed += self._end(who, "commit")

    def rollback(self, who: int) -> None:
        self._end(who, "rollback")

    def anew(self) -> None:
        """As at the beginning; positions and transaction ids go on."""
        for who in list(self.open):
            self.rollback(who)
        self.committed = []
        for statement in ("delete from outbox", "delete from audit", "update orders set version = 0"):
            self.sessions[0].execute(statement)

    def _in_transaction(self, who: int) -> Connection:
        if who not in self.open:
            self.sessions[who].execute("begin")
            self.open[who] = []
        return self.sessions[who]

    def _end(self, who: int, how: str) -> list[Numbered]:
        if who in self.open:
            self.sessions[who].execute(how)
        self.locked = {order: holder for order, holder in self.locked.items() if holder != who}
        return self.open.pop(who, [])
