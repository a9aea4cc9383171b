"""A schema out of one Postgres and into another, as an operator moves it: pg_dump | psql."""

import subprocess

from shared.errors import LabError
from shared.postgres import Connection
from shared.servers.catalogue.postgres import program
from shared.servers.server import Endpoint
from shared.settings import Settings

AGE = """
do $$ begin
    for number in 1..{} loop
        perform pg_current_xact_id();
        commit;
    end loop;
end $$
"""


def dump(source: Endpoint, schema: str, *options: str) -> bytes:
    """The schema as SQL. Raises LabError."""
    return _run("pg_dump", "--no-owner", f"--schema={schema}", *options, f"--dbname={source.url}")


def restore(target: Endpoint, script: bytes) -> None:
    """Run the SQL. Raises LabError at its first error."""
    _run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={target.url}", given=script)


def newest_id(connection: Connection) -> int:
    """The cluster's newest transaction id; this draws it."""
    [(newest,)] = connection.execute("select pg_current_xact_id()::text::bigint").fetchall()
    return int(newest)


def age(connection: Connection, count: int) -> None:
    """Let so many transactions pass, as in a cluster that has lived for a while."""
    connection.execute(AGE.format(count))


def _run(name: str, *arguments: str, given: bytes | None = None) -> bytes:
    command = [str(program(name, Settings.load().cache)), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode:
        raise LabError(f"{name}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
