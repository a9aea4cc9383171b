"""Rows out of one Postgres and into another, as an operator moves them: pg_dump | psql, pg_basebackup, pg_upgrade."""

import shutil
import subprocess
from pathlib import Path

from shared.errors import LabError
from shared.postgres import Connection
from shared.servers.catalogue.postgres import data_folder, program
from shared.servers.handle import Handle
from shared.servers.process import unprivileged_user
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


def copy_cluster(source: Endpoint, target: Handle, *options: str) -> None:
    """Give the target the files of the source, which runs: a physical backup and its restore. Raises LabError.

    It is stopped, and starts with `target.start()`. With `--write-recovery-conf` it follows the source as a standby.
    """
    target.stop()
    data = _emptied(target)
    _run("pg_basebackup", f"--pgdata={data}", f"--dbname={source.url}", "--checkpoint=fast", *options, as_server=True)


def upgrade(source: Handle, target: Handle) -> None:
    """Move all of the source into the target, an empty cluster, by pg_upgrade. Both are stopped. Raises LabError."""
    for handle in source, target:
        handle.stop()
    folders = [data_folder(handle.place) for handle in (source, target)]
    binaries = program("postgres", Settings.load().cache).parent
    _run(
        *("pg_upgrade", f"--old-datadir={folders[0]}", f"--new-datadir={folders[1]}", "--username=postgres"),
        *(f"--old-bindir={binaries}", f"--new-bindir={binaries}", f"--socketdir={folders[1]}", "--no-sync"),
        as_server=True,
        folder=folders[1],
    )


def newest_id(connection: Connection) -> int:
    """The cluster's newest transaction id; this draws it."""
    [(newest,)] = connection.execute("select pg_current_xact_id()::text::bigint").fetchall()
    return int(newest)


def age(connection: Connection, count: int) -> None:
    """Let so many transactions pass, as in a cluster that has lived for a while."""
    connection.execute(AGE.format(count))


def _emptied(handle: Handle) -> Path:
    """The server's data folder, with nothing in it."""
    data = data_folder(handle.place)
    shutil.rmtree(data)
    data.mkdir(mode=0o700)
    if user := unprivileged_user():
        shutil.chown(data, user["user"], user["group"])
    return data


def _run(
    name: str, *arguments: str, given: bytes | None = None, as_server: bool = False, folder: Path | None = None
) -> bytes:
    command = [str(program(name, Settings.load().cache)), *arguments]
    user = unprivileged_user() if as_server else {}
    done = subprocess.run(command, input=given, capture_output=True, check=False, cwd=folder or "/", **user)
    if done.returncode:
        raise LabError(f"{name}: {(done.stderr or done.stdout).decode(errors='replace').strip()}")
    return bytes(done.stdout)
