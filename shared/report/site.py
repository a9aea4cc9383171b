"""The pages and where they go."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shared.record import RunRecord, latest
from shared.report import decisions, syllabus, words
from shared.report.charts import charts
from shared.report.known_bugs import known_bugs, meaning, references
from shared.report.pictures import featured, histories
from shared.report.surroundings import surroundings
from shared.report.views import Run, covered_in, labs, page_of, totals
from shared.report.witnesses import Witness, witnesses

HERE = Path(__file__).parent
UNCOMMITTED = (
    "Made of the committed evidence. Histories are too large to be committed: anomalies are told in words, and drawn "
    "only where a history is there."
)


@dataclass(frozen=True, slots=True)
class _Site:
    """Renders templates into a folder."""

    folder: Path
    templates: Environment

    def page(self, name: str, template: str, **context: Any) -> Path:
        path = self.folder / name
        path.write_text(self.templates.get_template(template).render(page=name, **context), encoding="utf-8")
        return path


def build(home: Path, root: Path) -> Path:
    """Render the newest run of each experiment under `home`/runs and the documents of `root`/docs.

    Writes `home`/report, replacing the pages of an earlier build, and returns its index.html.
    """
    runs = [Run(folder, record) for folder, record in latest(home / "runs")]
    return _render(runs, root, home / "report")


def build_evidence(records: Iterable[RunRecord], home: Path, root: Path) -> Path:
    """The same of committed records, into `home`/evidence; a history is drawn where one lies beside its record."""
    folder = root / "docs" / "evidence"
    runs = [Run(folder / record.lab / record.experiment, record, committed=True) for record in records]
    return _render(runs, root, home / "evidence")


def _render(runs: Sequence[Run], root: Path, folder: Path) -> Path:
    sections = syllabus.read(root / "docs" / "syllabus.yaml")
    topics = {topic.id: topic.text for section in sections for topic in section.topics}
    proofs = syllabus.proofs(run.record for run in runs)
    adrs = decisions.read(root / "docs" / "adr")
    found = labs(sections, runs, proofs)
    site = _Site(_emptied(folder), _templates())
    told = {run.page: _run_page(site, run, topics) for run in runs}
    for adr in adrs:
        site.page(adr.page, "decision.html.j2", adr=adr)
    site.page("decisions.html", "decisions.html.j2", adrs=adrs)
    site.page("coverage.html", "coverage.html.j2", sections=sections, proofs=proofs, totals=totals(found))
    index = {
        "runs": runs,
        "told": told,
        "labs": found,
        "totals": totals(found),
        "featured": featured(runs),
        "bugs": known_bugs(run.record for run in runs),
        "around": surroundings([run.record.environment for run in runs]) if runs else [],
        "standing": {path.parent.name for path in (root / "experiments").glob("*/lab.toml")},
    }
    return site.page("index.html", "index.html.j2", **index)


def _run_page(site: _Site, run: Run, topics: Mapping[str, str]) -> list[Witness | None]:
    """Write the page of a run; returns what its histories tell of its claims."""
    views = list(histories(run))
    told = witnesses(run.record.claims, views)
    context = {
        "run": run,
        "record": run.record,
        "told": told,
        "charts": charts(run.record.figures),
        "histories": views,
        "around": surroundings([run.record.environment]),
    }
    site.page(run.page, "run.html.j2", **context, topics=topics)
    return told


def _emptied(folder: Path) -> Path:
    """The folder without pages of an earlier build (an experiment may be gone), with style and script."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.html"):
        path.unlink()
    for path in (HERE / "static").iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": words.number,
        "count": words.count,
        "lasting": words.lasting,
        "spoken": words.spoken,
    }
    templates.globals |= {
        "page_of": page_of,
        "covered_in": covered_in,
        "meaning": meaning,
        "references": references,
        "uncommitted": UNCOMMITTED,
    }
    return templates
