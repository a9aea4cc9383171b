"""An experiment with one seed after the other."""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape

from shared.commands.running import run_one
from shared.errors import LabError
from shared.output import make_console
from shared.plain import CROSS, TICK
from shared.record import RunRecord, records
from shared.settings import Settings

console = make_console()


@dataclass
class Repeats:
    """What the seeds have shown so far."""

    kept: Path | None = None  # the record of the first seed that failed, or of the last one that held
    failed: RunRecord | None = None  # the first
    seen: Counter[str] = field(default_factory=Counter)  # what must be seen at least once -> with how many seeds it was

    def take(self, folder: Path, record: RunRecord) -> None:
        """Add a run. Of all runs one record stays."""
        self.seen.update({text: int(seen) for text, seen in record.sometimes.items()})
        if self.failed:
            shutil.rmtree(folder)
            return
        if self.kept:
            shutil.rmtree(self.kept)
        self.kept, self.failed = folder, None if record.holds else record


def repeat(script: Path, words: Sequence[str], seed: int | None, count: int) -> bool:
    """Run it with so many seeds, a line each. Whether all held, and what must be seen at least once was seen."""
    first = random.SystemRandom().randrange(10**6) if seed is None else seed
    repeats, name = Repeats(), f"{script.parent.name}/{script.stem[:2]}"
    console.print(f"\n[bold]{escape(f'{script.parent.name}/{script.stem}')}[/bold], {count} seeds")
    for chosen in range(first, first + count):
        folder, record = _run(script, [*words, "--seed", str(chosen)])
        repeats.take(folder, record)
        held = sum(claim.holds for claim in record.claims)
        mark = TICK if record.holds else CROSS
        console.print(f"  {mark} seed {chosen}: {held} of {len(record.claims)} claims hold, {record.seconds:.1f} s")
        for said in [claim.text for claim in record.claims if not claim.holds] + [record.error] * bool(record.error):
            console.print(f"      {escape(said)}")
    for text, times in repeats.seen.items():
        console.print(f"  {TICK if times else CROSS} {escape(text)}: seen with {times} of {count} seeds")
    if repeats.failed:
        console.print(f"  record of the first that failed: {repeats.kept}")
        console.print(f"  repeat it: lab run {name} --seed {repeats.failed.seed} {' '.join(words)}")
    return not repeats.failed and all(repeats.seen.values())


def _run(script: Path, words: Sequence[str]) -> tuple[Path, RunRecord]:
    """One run, and the folder of its record. What it says is shown only where it has made none."""
    runs = Settings.load().home / "runs" / script.parent.name / script.stem
    before = set(records(runs))
    with tempfile.TemporaryFile() as said:
        run_one(script, [*words, "--brief"], said.fileno())
        made = [path for path in records(runs) if path not in before]
        if not made:
            said.seek(0)
            raise LabError(f"{script} has recorded nothing: {os.fsdecode(said.read()).strip()}")
    return made[-1].parent, RunRecord.read(made[-1])
