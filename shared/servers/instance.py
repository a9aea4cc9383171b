"""One running instance of a server, as written on disk: `instance.json`, next to its data and logs."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from shared.errors import ConfigurationError, LabError
from shared.files import write_whole
from shared.servers.process import ProcessId
from shared.servers.server import Endpoint


class ProcessRecord(BaseModel):
    """A process, its log, and how it is stopped."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: str  # see process.moment
    log: Path
    graceful: str = "SIGTERM"
    finish: tuple[str, ...] = ()
    finished: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, data: Any) -> Any:
        match data:
            case {"pid": int(pid), "created": int(created) | float(created)}:
                return {**data, "started": ProcessId.recorded(pid, created).started}
        return data

    @property
    def identity(self) -> ProcessId:
        return ProcessId(self.pid, self.started)


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
    owner: tuple[int, str] | None = None  # the process (id, moment made) that it belongs to; None: it is shared
    lent: bool = False  # a shared one that was started for a run; `lab up` has not asked for it
    processes: tuple[ProcessRecord, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, data: Any) -> Any:
        match data:
            case {"owner": [int(pid), int(created) | float(created)]}:
                return {**data, "owner": (pid, ProcessId.recorded(pid, created).started)}
        return data

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
        """Write it whole or not at all; a new folder appears with it, or `sweep` might take it for one left behind."""
        place = folder if folder.exists() else folder.with_name(f".{folder.name}")
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / "instance.json", self.model_dump_json(indent=1))
        if place != folder:
            place.rename(folder)
        return self


def read(folder: Path) -> InstanceRecord | None:
    """The record in the folder; None when there is none, or only the rubbish of an interrupted machine.

    Raises ConfigurationError when it is an earlier version's, and a process of that id runs that may be another.
    """
    file = folder / "instance.json"
    try:
        return InstanceRecord.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    except LabError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def forget(folder: Path) -> None:
    (folder / "instance.json").unlink(missing_ok=True)
