"""Thin helpers over psycopg.

An address is whatever libpq takes: a URL, or keywords and values (PostgreSQL documentation, "Connection Strings"). It
is taken apart and put together by libpq's own functions, so nothing that the user has put into it is lost.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, LiteralString
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ObjectInUse
from psycopg.pq import Conninfo

from shared.errors import ConfigurationError
from shared.servers.server import Endpoint
from shared.wait import until

Connection = psycopg.Connection[tuple[Any, ...]]
LONGEST = 63  # bytes of a name (NAMEDATALEN - 1); Postgres cuts off what is longer, and says so in a notice only
LETTING_GO = 30  # seconds that a slot's reader has to be gone when it is cut off
# Options are separated by white space that is not escaped (PostgreSQL documentation, "options").
_SEPARATING, _ESCAPED = r"([\\\s])", r"\\\1"
_OPTION = re.compile(r"(?:\\.|[^\\\s])+", re.DOTALL)
# What the texts that a session reads and writes depend on. A database or a role may have other defaults.
SETTINGS = {
    "client_encoding": "UTF8",
    "bytea_output": "hex",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
}
READ_COMMITTED = {"default_transaction_isolation": "read committed"}
# And what our transactions are written for (PostgreSQL documentation, "Client Connection Defaults").
TRANSACTIONS = READ_COMMITTED | {
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
}


def in_schema(conninfo: str, *schemas: str) -> str:
    """The address with these schemas, and then `public`, on the search path of every session.

    Raises ConfigurationError on a name that Postgres would cut off or does not take.
    """
    return having(conninfo, search_path=",".join([*map(_quoted, schemas), "public"]))


def having(conninfo: str, **settings: str) -> str:
    """The address whose sessions begin with these settings of Postgres, too.

    The options that it has already stay, or else those of PGOPTIONS, which it would hide.
    """
    return make_conninfo(conninfo, options=f"{fields(conninfo).get('options', '')} {_options(settings)}".strip())


def fields(conninfo: str) -> dict[str, str]:
    """What the address says, by libpq's keywords, and for what it does not say the environment (PGHOST, ...)."""
    named = ((option.keyword.decode(), (option.envvar or b"").decode()) for option in Conninfo.get_defaults())
    default = {keyword: os.environ[name] for keyword, name in named if os.environ.get(name)}
    return default | {keyword: str(value) for keyword, value in conninfo_to_dict(conninfo).items()}


def url(conninfo: str, **changes: str) -> str:
    """The address as a URL, for libraries that take nothing else, with other values for some of its keywords.

    Hosts and ports are in its query: so libpq and SQLAlchemy both read several of them, IPv6 and sockets, too.
    """
    given = {name: str(value) for name, value in conninfo_to_dict(conninfo, **changes).items()}
    user, password, dbname = (quote(given.pop(name, ""), safe="") for name in ("user", "password", "dbname"))
    credentials = f"{user}:{password}@" if password else f"{user}@" if user else ""
    return f"postgresql://{credentials}/{dbname}?{urlencode(given, quote_via=quote)}".rstrip("?")


def create_schema(endpoint: Endpoint, schema: str) -> str:
    """Make the schema; returns an address whose sessions live in it. Raises ConfigurationError as `connect` does."""
    conninfo = in_schema(endpoint.url, schema)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        _check_options(connection)
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    return conninfo


def drop_schema(endpoint: Endpoint, schema: str) -> None:
    """Drop the schema with all that is in it, and the slots and publications whose names begin with its name.

    Raises DeadlineExceeded when a slot's reader does not let go of it.
    """
    if not schema:
        raise ValueError("refusing to drop every slot and publication")
    with psycopg.connect(endpoint.url, autocommit=True) as connection:
        slots = "select slot_name from pg_replication_slots where starts_with(slot_name, %s)"
        for (name,) in connection.execute(slots, [schema]).fetchall():
            drop_slot(connection, name)
        publications = connection.execute("select pubname from pg_publication where starts_with(pubname, %s)", [schema])
        for (name,) in publications.fetchall():
            connection.execute(sql.SQL("drop publication {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))


def drop_slot(connection: Connection, name: str) -> None:
    """Drop the replication slot, if there is one: a slot that nobody reads keeps Postgres' log for ever.

    Who reads it still is cut off: Postgres may not have noticed yet that a reader was killed, and holds the slot for
    it. The connection is in autocommit mode. Raises DeadlineExceeded when a reader takes it again and again.
    """
    until(f"slot {name} to be let go", lambda: _dropped(connection, name), LETTING_GO)


def connect(conninfo: str) -> Connection:
    """A session in autocommit mode: transactions are where the code says `with connection.transaction()`.

    It has SETTINGS and TRANSACTIONS, where the address does not say otherwise. With an address of `in_schema`, it is in
    that schema. Raises ConfigurationError where it is not: whatever it made would be in `public`, and stay there.
    """
    connection: Connection = psycopg.connect(_settled(conninfo), autocommit=True)
    try:
        _check_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def number(connection: Connection, query: LiteralString, *values: object) -> int:
    """The one number that a query asks for; 0 where it has no row, or null."""
    row = connection.execute(query, values or None).fetchone()
    return int(row[0] or 0) if row else 0


def settle(connection: Connection, **more: str) -> None:
    """Set SETTINGS, and more, for an autocommit session, whatever database or role have as their defaults."""
    settings = [sql.SQL("set_config({}, {}, false)").format(name, value) for name, value in (SETTINGS | more).items()]
    connection.execute(sql.SQL("select {}").format(sql.SQL(", ").join(settings)))


def _settled(conninfo: str) -> str:
    """The address with all settings of ours before the options that it has: the last one of a name counts.

    An encoding that PGCLIENTENCODING names would come after the options, so ours stands beside them, too.
    """
    options = f"{_options(SETTINGS | TRANSACTIONS)} {fields(conninfo).get('options', '')}"
    return make_conninfo(conninfo, client_encoding=SETTINGS["client_encoding"], options=options)


def _options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={re.sub(_SEPARATING, _ESCAPED, value)}" for name, value in settings.items())


def _check_schema(connection: Connection) -> None:
    """Raise ConfigurationError unless the session is in the schema that its options ask for."""
    wanted = _first(_path(connection))
    if wanted and _ask(connection, "current_schema()") != wanted:
        _check_options(connection)
        raise ConfigurationError(
            f"there is no schema {wanted!r} in database {connection.info.dbname!r} that "
            f"{connection.info.user!r} may use."
        )


def _check_options(connection: Connection) -> None:
    """Raise ConfigurationError unless the session has the search path that its options ask for."""
    if _ask(connection, "current_setting('search_path')") != (path := _path(connection)):
        raise ConfigurationError(
            f"a session in schema {_first(path)!r} was asked for, and the options that say so did not arrive, as "
            "behind a pooler that drops them: address Postgres itself, or a session pool that passes options on."
        )


def _path(connection: Connection) -> str:
    """The search path that the session was opened with, as `in_schema` writes it; empty when it names none."""
    found = [option for option in _OPTION.findall(connection.info.options) if option.startswith("search_path=")]
    return re.sub(r"\\(.)", r"\1", found[-1].removeprefix("search_path="), flags=re.DOTALL) if found else ""


def _first(path: str) -> str:
    quoted = re.match(r'"((?:[^"]|"")*)"', path)
    return quoted[1].replace('""', '"') if quoted else ""


def _quoted(name: str) -> str:
    """A schema's name as the search path has it. Raises ConfigurationError."""
    if not name or "\0" in name or len(name.encode()) > LONGEST:
        raise ConfigurationError(f"{name!r} cannot be a schema's name: it has 1 to {LONGEST} bytes, and no NUL.")
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _ask(connection: Connection, expression: LiteralString) -> object:
    row = connection.execute(f"select {expression}").fetchone()
    return row[0] if row else None


def _dropped(connection: Connection, name: str) -> bool:
    """Whether the slot is gone: its reader is cut off, and may be back before the slot is dropped."""
    try:
        for step in (
            f"pg_terminate_backend(active_pid, {LETTING_GO * 1000})",  # returns when the session is gone
            "pg_drop_replication_slot(slot_name)",
        ):
            connection.execute(f"select {step} from pg_replication_slots where slot_name = %s", [name])  # noqa: S608
    except ObjectInUse:
        return False
    return True
