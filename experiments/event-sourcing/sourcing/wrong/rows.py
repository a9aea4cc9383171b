"""The account as a row that several write at once. The first two ways are WRONG, and kept to be measured.

`read_change_write` loses updates (P4 in Berenson et al., A Critique of ANSI SQL Isolation Levels, 1995).
`check_then_change` loses none and still pays out money that is not there. `locked` is right, and like every row it
forgets why the balance is what it is.
"""

from shared.postgres import Connection
from sourcing.aggregate import InvariantViolated
from sourcing.windows import Hook, nowhere

SCHEMA = "create table accounts (id text primary key, cents bigint not null)"
BETWEEN = "read, not written"  # the window in which another writer may come


def open_account(connection: Connection, account: str, cents: int) -> None:
    connection.execute("insert into accounts values (%s, %s)", [account, cents])


def balance(connection: Connection, account: str, lock: str = "") -> int:
    """In cents. `lock` is put behind the query. Raises InvariantViolated where there is no such account."""
    row = connection.execute(f"select cents from accounts where id = %s {lock}", [account]).fetchone()  # noqa: S608
    if row is None:
        raise InvariantViolated(f"account {account}: it was never opened")
    return int(row[0])


def read_change_write(connection: Connection, account: str, cents: int, at: Hook = nowhere) -> None:
    """Add the cents (below zero: a withdrawal) to what was read, and write the sum back."""
    after = _decide(account, balance(connection, account), cents)
    at(BETWEEN)
    connection.execute("update accounts set cents = %s where id = %s", [after, account])


def check_then_change(connection: Connection, account: str, cents: int, at: Hook = nowhere) -> None:
    """Check what was read, and let the database add."""
    _decide(account, balance(connection, account), cents)
    at(BETWEEN)
    connection.execute("update accounts set cents = cents + %s where id = %s", [cents, account])


def locked(connection: Connection, account: str, cents: int, at: Hook = nowhere) -> None:
    """As the first, but whoever reads holds the row until it is written."""
    with connection.transaction():
        after = _decide(account, balance(connection, account, "for update"), cents)
        at(BETWEEN)
        connection.execute("update accounts set cents = %s where id = %s", [after, account])


def _decide(account: str, before: int, cents: int) -> int:
    if before + cents < 0:
        raise InvariantViolated(f"account {account}: {-cents} is more than the balance of {before}")
    return before + cents
