"""One running instance of a server, as written on disk: `instance.json`, next to its data and logs."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.servers.process import ProcessId
from shared.servers.server import Endpoint


class ProcessRecord(BaseModel):
    """A process, its log, and how it is stopped."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float
    log: Path
    graceful: str = "SIGTERM"
    finish: tuple[str, ...] = ()
    finished: Path | None = None

    @property
    def identity(self) -> ProcessId:
        return ProcessId(self.pid, self.created)


class InstanceRecord(BaseModel):
    """An instance. `ready` is False from the launch of its first process until it answers."""

    model_config = ConfigDict(frozen=True)

    server: str
    provider: str
    url: str
    inside: str = ""
    ports: dict[str, int]
    version: str = ""
    ready: bool = False
    seconds: float = 0.0  # from launch to the first answer
    owner: tuple[int, float] | None = None  # the process (id, moment made) that it belongs to; None: `lab up`'s
    processes: tuple[ProcessRecord, ...] = ()

    def endpoint(self) -> Endpoint:
        return Endpoint(self.server, self.url, self.provider, inside=self.inside)

    @property
    def dead(self) -> list[ProcessRecord]:
        """Its processes that do not run any more."""
        return [process for process in self.processes if not process.identity.alive]

    @property
    def orphaned(self) -> bool:
        """Whether the run or test that it belongs to has ended without stopping it."""
        return self.owner is not None and not ProcessId(*self.owner).alive

    def write(self, folder: Path) -> "InstanceRecord":
        folder.mkdir(parents=True, exist_ok=True)
        half = folder / ".instance.json.half"
        half.write_text(self.model_dump_json(indent=1))
        half.replace(folder / "instance.json")
        return self


def read(folder: Path) -> InstanceRecord | None:
    """The record in the folder; None when there is none, or only the rubbish of an interrupted machine."""
    try:
        return InstanceRecord.model_validate_json((folder / "instance.json").read_bytes())
    except (OSError, ValidationError):
        return None


def forget(folder: Path) -> None:
    (folder / "instance.json").unlink(missing_ok=True)
