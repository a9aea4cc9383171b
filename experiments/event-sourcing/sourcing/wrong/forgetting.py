"""WRONG: a person is forgotten where the program looks. Topic, backup and log hold what they held before."""

from collections.abc import Sequence

from shared.postgres import Connection

OVERWRITE = """
update events set data = convert_to(replace(convert_from(data, 'utf8'), %s, 'anonymous'), 'utf8') where stream = %s
"""


def delete_stream(connection: Connection, ident: str) -> None:
    """Forget by removing all that the database has of the person: stream, row and snapshot."""
    connection.execute("delete from events where stream = %s", [f"customer-{ident}"])
    connection.execute("delete from customers where customer = %s", [ident])
    connection.execute("delete from customer_snapshots where customer = %s", [ident])


def anonymise(connection: Connection, ident: str, texts: Sequence[str]) -> None:
    """Forget by writing over all that the database has of the person. The past is changed to do it."""
    for text in texts:
        connection.execute(OVERWRITE, [text, f"customer-{ident}"])
    connection.execute("update customers set name = 'anonymous', email = '', address = '' where customer = %s", [ident])
    connection.execute("delete from customer_snapshots where customer = %s", [ident])
