"""The account as most programs have it: one row that is updated in place. Here to be compared with.

It has the same feature as `loyalty.LoyalAccount`: a balance that never goes below zero, and points for deposits.
"""

from collections.abc import Callable

from shared.postgres import Connection

SCHEMA = """
create table account_rows (
    id         text primary key,
    owner      text not null,
    balance    bigint not null default 0 check (balance >= 0),
    points     bigint not null default 0,
    updated_at timestamptz not null default clock_timestamp()
)
"""


class AccountRows:
    """Accounts as rows. Money in cents; `points` says how many a deposit brings. Raises psycopg's CheckViolation."""

    def __init__(self, connection: Connection, points: Callable[[int], int]) -> None:
        self.connection = connection
        self.points = points

    def open(self, ident: str, owner: str) -> None:
        self.connection.execute("insert into account_rows (id, owner) values (%s, %s)", [ident, owner])

    def deposit(self, ident: str, cents: int) -> None:
        self._change(ident, cents, self.points(cents))

    def withdraw(self, ident: str, cents: int) -> None:
        self._change(ident, -cents, 0)

    def _change(self, ident: str, cents: int, points: int) -> None:
        self.connection.execute(
            "update account_rows set balance = balance + %s, points = points + %s, updated_at = clock_timestamp()"
            " where id = %s",
            [cents, points, ident],
        )
