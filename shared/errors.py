"""Everything that the house raises on purpose.

LabError                      the root; the `lab` command prints it as one sentence and exits 1
├── ConfigurationError        an option, environment variable or lab file that cannot be used
├── ServerError               something about one server; carries its name and, where there is one, its log file
│   ├── PortTaken             another process listens on the port
│   ├── StartFailed           the process ended, or was killed, before it answered
│   ├── NotReady              it runs but did not answer within the deadline
│   ├── NotControllable       it is not ours to kill, pause or restart
│   └── NotAvailable          this provider cannot have it on this machine
├── ArtifactError             a file that a server needs
│   ├── DownloadFailed        it could not be fetched
│   └── ChecksumMismatch      it was fetched, but it is not the file that the lock names
├── HistoryError              a history that cannot be read or judged
│   └── FaultNotFired         a fault run in which no fault happened proves nothing
├── NotAdopted                a table whose rows came from another cluster, and that nobody has adopted in this one
├── CheckpointRefused         one of a row that is not there (any more): what was read is not what is here
├── EventError                bytes or attributes that are not an event; lists everything that is wrong
├── NotReadable               bytes that are not what they should be (also a ValueError)
├── NotWritable               a value that would not be read back equal (also a TypeError)
└── DeadlineExceeded          a condition that did not come true in time
"""

from collections.abc import Mapping, Sequence
from pathlib import Path


class LabError(Exception):
    """The root of the tree above."""


class ConfigurationError(LabError):
    """An option, environment variable or lab file that cannot be used."""


class ServerError(LabError):
    """Something about one server. `server` is its name, `log` the file that says more."""

    def __init__(self, server: str, message: str, log: Path | None = None) -> None:
        super().__init__(f"{server}: {message}" + (f" Its log: {log}" if log else ""))
        self.server = server
        self.log = log


class PortTaken(ServerError):
    """Another process listens on a port that the server needs."""

    def __init__(self, server: str, port: int, holder: str, role: str = "client") -> None:
        name = server if role == "client" else f"{server}_{role}"
        remedy = f"stop it, or choose another port with LAB_{name.upper().replace('-', '_')}_PORT."
        super().__init__(server, f"port {port} is taken by {holder}; {remedy}")
        self.port = port


class StartFailed(ServerError):
    """The process ended, or was killed, before it answered."""


class NotReady(ServerError):
    """The process runs but did not answer within the deadline."""


class NotControllable(ServerError):
    """The server is not ours to kill, pause or restart."""


class NotAvailable(ServerError):
    """This provider cannot have the server on this machine."""


class ArtifactError(LabError):
    """A file that a server needs and that cannot be used. `coordinate` names it."""

    def __init__(self, coordinate: str, message: str) -> None:
        super().__init__(f"{coordinate}: {message}")
        self.coordinate = coordinate


class DownloadFailed(ArtifactError):
    """The file could not be fetched."""


class ChecksumMismatch(ArtifactError):
    """The file was fetched, but it is not the one that the lock names."""


class HistoryError(LabError):
    """A history that cannot be read or judged."""


class FaultNotFired(HistoryError):
    """A fault run in which no fault happened."""


class NotAdopted(LabError):
    """A table whose rows came from another cluster, and that nobody has adopted in this one; says the command."""


class CheckpointRefused(LabError):
    """A checkpoint of a row that is not there: the rows were restored from an older backup than the reader's."""

    def __init__(self, reader: str, remedy: str) -> None:
        super().__init__(
            f"{reader}: the row at its checkpoint is not there, as after a restore from an older backup; {remedy}"
        )


class EventError(LabError):
    """Not an event. `problems` maps each attribute (or "data") to what is wrong with it."""

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        super().__init__("; ".join(f"{name}: {', '.join(found)}" for name, found in problems.items()))
        self.problems = problems


class NotReadable(LabError, ValueError):
    """Bytes, or a decoded value, that are not what they should be; the message says what is wrong."""


class NotWritable(LabError, TypeError):
    """A value that would not be read back equal; the message says where in it."""


class DeadlineExceeded(LabError):
    """A condition that did not come true in time."""
