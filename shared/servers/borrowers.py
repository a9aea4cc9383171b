"""Who uses the servers of a LAB_HOME for the time of a run: one file per borrower, written and read under its lock.

Servers that were started for a run stop with the last borrower that lives. One that was killed does not count.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.files import write_whole
from shared.servers.process import ProcessId


class Borrower(BaseModel):
    """A process that needs these servers until it gives them back, or ends."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: str  # see process.moment
    what: str  # its command line
    servers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} (process {self.pid})"


def place(home: Path) -> Path:
    """Where this process may write down what it borrows; several may be borrowed at once."""
    return home / "borrowers" / f"{os.getpid()}-{uuid4().hex[:8]}.json"


def write(file: Path, servers: Iterable[str]) -> None:
    """This process needs the servers from now on, until the file is gone."""
    me = ProcessId.of(os.getpid())
    what = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    borrower = Borrower(pid=me.pid, started=me.started, what=what, servers=tuple(servers))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, borrower.model_dump_json(indent=1))


def living(home: Path) -> list[Borrower]:
    """Those that have not given back what they need. Files of the dead are removed."""
    found = []
    for file in sorted((home / "borrowers").glob("[!.]*.json")):
        try:
            borrower = Borrower.model_validate_json(file.read_bytes())
        except ValidationError:  # the rubbish of an interrupted machine
            borrower = None
        if borrower and ProcessId(borrower.pid, borrower.started).alive:
            found.append(borrower)
        else:
            file.unlink(missing_ok=True)
    return found
