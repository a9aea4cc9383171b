"""Committed run records, and what documents cite of them: cog blocks call the functions below.

`docs/evidence/<lab>/<experiment>.json` is the record of a run at scale `full`. A figure in prose is made from it by a
cog block, and `make check` fails when the two differ.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from shared import labs
from shared.contrast import contrast
from shared.output import number, show
from shared.plain import CROSS, TICK
from shared.record import Claim, Figure, RunRecord, covered, latest
from shared.report.known_bugs import KnownBug, known_bugs, meaning
from shared.report.syllabus import Section
from shared.settings import ROOT

FOLDER = ROOT / "docs" / "evidence"


def read(target: str, folder: Path = FOLDER) -> RunRecord:
    """The committed record of `lab/experiment`. Raises ConfigurationError when there is none."""
    return RunRecord.read(folder / f"{target}.json")


def keep(record: RunRecord, folder: Path = FOLDER) -> Path:
    """Make a run's record the evidence of its experiment."""
    path = folder / record.lab / f"{record.experiment}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_dump_json(indent=1, exclude_defaults=True) + "\n", encoding="utf-8")
    return path


def committed(folder: Path = FOLDER) -> Iterator[RunRecord]:
    return (RunRecord.read(path) for path in sorted(folder.glob("*/*.json")))


def newest(home: Path, folder: Path = FOLDER) -> list[RunRecord]:
    """The last record of every experiment: of a run on this machine, else the committed one."""
    here = {(record.lab, record.experiment): record for _, record in latest(home / "runs")}
    there = {(record.lab, record.experiment): record for record in committed(folder)}
    return list((there | here).values())


def value(target: str, name: str, variant: str = "") -> str:
    """One figure with its unit, as prose has it: `12.3 ms`."""
    figure = read(target).figure(name, variant)
    return f"{show(figure)} {figure.unit}".strip()


def claims(lab: str) -> str:
    """A Markdown table of a lab's claims with their verdicts and facts, and which of them are of a wrong way."""
    lines = ["| | | claim | seen |", "|---|---|---|---|"]
    for record in committed():
        if record.lab == lab:
            lines.append(f"| | | **{record.title}** (`{_command(record.lab, record.experiment)}`) | |")
            lines.extend(_row(claim) for claim in record.claims)
    return "\n".join(lines)


def table(target: str) -> str:
    """A Markdown table of an experiment's figures; ranges where there are several samples."""
    lines = ["| figure | value | p95 | samples |", "|---|---:|---:|---:|"]
    for figure in read(target).figures:
        name = f"{figure.name}: {figure.variant}" if figure.variant else figure.name
        p95 = "" if figure.p95 is None else f"{number(figure.p95)} {figure.unit}"
        lines.append(f"| {_cell(name)}{_at(figure)} | {number(figure.value)} {figure.unit} | {p95} | {figure.n} |")
    return "\n".join(lines)


def grid(target: str) -> str:
    """A Markdown table of figures with a column for every variant and a row for every figure, at each x."""
    figures = [figure for figure in read(target).figures if figure.variant]
    variants = list(dict.fromkeys(figure.variant for figure in figures))
    rows: dict[str, dict[str, str]] = {}
    for figure in figures:
        unit = f", {figure.unit}" if figure.unit else ""
        rows.setdefault(f"{figure.name}{_at(figure)}{unit}", {})[figure.variant] = number(figure.value)
    lines = [f"| | {' | '.join(variants)} |", f"|---|{'---:|' * len(variants)}"]
    lines += [f"| {name} | {' | '.join(row.get(v, '—') for v in variants)} |" for name, row in rows.items()]
    return "\n".join(lines)


def contrasts() -> str:
    """A Markdown table: what the wrong way and the right way did, in the flagship experiment of each lab."""
    lines = ["| lab | the wrong way | the right way |", "|---|---|---|"]
    for script in labs.tour():
        found = contrast(read(f"{script.parent.name}/{script.stem}"))
        ways = (f"{_cell(claim.text)}: **{_cell(claim.fact)}**" for claim in (found.wrong, found.right))
        lines.append(f"| [{script.parent.name}](experiments/{script.parent.name}/README.md) | {' | '.join(ways)} |")
    return "\n".join(lines)


def environment(target: str) -> str:
    """What an experiment's evidence was measured on, in one sentence."""
    record = read(target)
    machine = record.environment
    servers = "".join(f", {name} {version}" for name, version in machine.servers.items())
    return (
        f"Run of {record.started:%Y-%m-%d} at commit {machine.commit}, seed {record.seed}: {machine.cpus} cores, "
        f"{machine.memory_gb:.0f} GB, fsync {machine.fsync_ms:.2f} ms, load {machine.load:.1f}{servers}."
    )


def syllabus(sections: Sequence[Section], records: Sequence[RunRecord]) -> str:
    """The text of docs/syllabus.md: every topic with the claims that demonstrate it."""
    proofs = covered(records)
    topics = [topic for section in sections for topic in section.topics]
    held = sum(topic.id in proofs for topic in topics)
    lines = [
        "# Syllabus: topic, claim",
        "",
        f"Made by `lab evidence` from docs/evidence: {held} of {len(topics)} topics are shown by a claim that held.",
    ]
    for section in sections:
        lines += ["", f"## {section.id} {section.title}", "", "| topic | claims that held |", "|---|---|"]
        lines += [f"| {topic.text} | {'<br>'.join(proofs.get(topic.id, ['—']))} |" for topic in section.topics]
    return "\n".join(lines) + "\n"


def bugs(records: Iterable[RunRecord]) -> str:
    """The text of docs/known-bugs.md: every claim that reproduces a public report, with versions and verdict."""
    found = known_bugs(records)
    lines = ["# Known bugs, reproduced", ""]
    if not found:
        return "\n".join([*lines, "Made by `lab evidence` from docs/evidence: no report is recorded yet."]) + "\n"
    lines += [
        "Made by `lab evidence` from docs/evidence: claims that name the public report which they reproduce.",
        "",
        "| report | versions | verdict | claim | seen | run |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_bug, found)]) + "\n"


def _bug(bug: KnownBug) -> str:
    reports = ", ".join(f"[{one.text}]({one.url})" if one.url else one.text for one in bug.references)
    verdict, run = meaning(bug.claim), f"`{_command(bug.lab, bug.experiment)}`"
    cells = (reports, bug.versions, verdict, bug.claim.text, bug.claim.fact, run)
    return f"| {' | '.join(map(_cell, cells))} |"


def _at(figure: Figure) -> str:
    """Where on its x axis a figure lies, as in ` (8 writers)`."""
    if figure.x is None:
        return ""
    place = figure.x if isinstance(figure.x, str) else f"{figure.x:,.10g}"
    return f" ({f'{place} {figure.x_label}'.strip()})"


def _row(claim: Claim) -> str:
    way = "wrong way" if claim.wrong_way else ""
    return f"| {_mark(claim.holds)} | {way} | {_cell(claim.text)} | {_cell(claim.fact)} |"


def _command(lab: str, experiment: str) -> str:
    number = experiment[:2]
    if number.isdigit():
        return f"lab run {lab}/{number}"
    return f"python experiments/{lab}/{experiment}.py"


def _cell(text: str) -> str:
    """Text within a cell of a Markdown table."""
    return text.replace("|", "\\|")


def _mark(holds: bool) -> str:
    return TICK if holds else CROSS
