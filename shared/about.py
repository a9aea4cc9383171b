"""What a run claims and measures of one of the variants that it compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.history import History
from shared.record import Figure

if TYPE_CHECKING:
    from shared.run import Run


@dataclass(frozen=True)
class About:
    """One variant: `claim`, `figure` and `judge` as those of the run, said of it."""

    run: "Run"
    variant: str
    wrong_way: bool
    topics: Sequence[str]

    def claim(
        self, text: str, holds: bool, *, fact: str = "", topics: Sequence[str] | None = None, source: str = ""
    ) -> None:
        """Assert one sentence; without topics of its own it has those of the variant."""
        topics = self.topics if topics is None else topics
        about = {"variant": self.variant, "wrong_way": self.wrong_way, "source": source}
        self.run.claim(text, holds, topics=topics, fact=fact, **about)  # type: ignore[arg-type]

    def figure(
        self,
        name: str,
        value: float | Sequence[float],
        unit: str,
        *,
        x: str | float | None = None,
        x_label: str = "",
        **parameters: str | int | float | bool,
    ) -> Figure:
        """Note one measured value, or samples of it."""
        own = {"variant": self.variant, "wrong_way": self.wrong_way, "x": x, "x_label": x_label}
        return self.run.figure(name, value, unit, **own, **parameters)  # type: ignore[arg-type]

    def judge(self, name: str, fault: str | None = None, also: Sequence[Path] = ()) -> History:
        """Read a history, with what stands in other files, and run every checker over it."""
        return self.run.judge(name, variant=self.variant, wrong_way=self.wrong_way, fault=fault, also=also)
