"""Places where processes wait for each other: a race needs all of them in it, and each takes its time to start."""

from dataclasses import dataclass
from pathlib import Path

from shared.wait import until

_OPEN = "open"


@dataclass(frozen=True)
class Gate:
    """A gate that is closed until it is opened. The files of a folder say who stands at it, and whether it is open."""

    folder: Path
    patience: float = 60.0  # seconds after which whoever waits gives up, with DeadlineExceeded

    def wait(self, name: str) -> None:
        """Stand at the gate, under a name, until it is open."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.here").touch()
        until(f"the gate {self.folder.name} to open", (self.folder / _OPEN).exists, self.patience)

    def there(self) -> set[str]:
        """The names of those who stand at the gate, or have passed it."""
        return {path.stem for path in self.folder.glob("*.here")}

    def await_all(self, count: int) -> None:
        """Until so many stand at it."""
        until(f"{count} at the gate {self.folder.name}", lambda: len(self.there()) >= count, self.patience)

    def open(self) -> None:
        """Let go whoever stands there, or comes later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _OPEN).touch()
