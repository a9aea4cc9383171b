"""The labs of the house, found in their folders: `experiments/<lab>/lab.toml` and the numbered scripts beside it."""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.errors import ConfigurationError
from shared.settings import ROOT

FOLDER = ROOT / "experiments"


@dataclass(frozen=True)
class Declared:
    """What a script declares of its experiment: its docstring's first paragraph, and the words of `Experiment(...)`."""

    script: Path
    question: str
    title: str
    servers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.script.stem


@dataclass(frozen=True)
class Lab:
    """One lab. The fields are those of its lab.toml."""

    folder: Path
    title: str
    question: str
    section: str  # of the syllabus
    package: str
    tour: tuple[str, ...]  # experiment numbers that `make demo` runs
    adr: str = ""  # file below docs/adr

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def scripts(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9][0-9]_*.py"))

    @cached_property
    def experiments(self) -> list[Declared]:
        return [declared(script) for script in self.scripts]

    @property
    def servers(self) -> list[str]:
        return list(dict.fromkeys(server for experiment in self.experiments for server in experiment.servers))


def labs() -> list[Lab]:
    """Every lab, in the order of the syllabus. Raises ConfigurationError naming a lab.toml that is not one."""
    return sorted((_read(path) for path in FOLDER.glob("*/lab.toml")), key=lambda lab: lab.section)


def find(name: str) -> Lab:
    """The lab of that name, or of an unambiguous beginning of it. Raises ConfigurationError listing the candidates."""
    there = {lab.name: lab for lab in labs()}
    return there[_one(name, there, f"There is no lab {name!r}. There are", f"{name!r} may be")]


def scripts(targets: Iterable[str]) -> Iterator[Path]:
    """Scripts by `lab`, `lab/1`, `lab/01`, `lab/01_name`, an unambiguous beginning of that, or path.

    Raises ConfigurationError, listing the candidates, on a target that names none or several.
    """
    for target in targets:
        if Path(target).suffix == ".py" and Path(target).exists():
            yield Path(target).resolve()
            continue
        lab_name, _, name = target.strip("/").removeprefix("experiments/").partition("/")
        lab = find(lab_name)
        there = {script.stem: script for script in lab.scripts}
        if name:
            wanted = f"{int(name):02d}_" if re.fullmatch("[0-9]+", name) else name.removesuffix(".py")
            none = f"{lab.name} has no experiment {name!r}. It has"
            yield there[_one(wanted, there, none, f"{lab.name}/{name} may be")]
        else:
            yield from there.values()


def _one(beginning: str, names: Iterable[str], none: str, several: str) -> str:
    """The name that is the beginning, or else the only one that begins with it. Raises ConfigurationError."""
    found = sorted(name for name in names if name.startswith(beginning))
    if beginning in found:
        return beginning
    if not found or not beginning:
        raise ConfigurationError(f"{none}: {', '.join(names)}.")
    if len(found) > 1:
        raise ConfigurationError(f"{several}: {', '.join(found)}.")
    return found[0]


def tour() -> list[Path]:
    """The flagship experiments of every lab."""
    return list(scripts(f"{lab.name}/{number}" for lab in labs() for number in lab.tour))


def declared(script: Path) -> Declared:
    """What a script declares, read and not run: no lab is imported for it.

    Raises ConfigurationError when it declares no experiment, or by other words than literals.
    """
    tree = ast.parse(script.read_bytes())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    call = next((one for one in calls if isinstance(one.func, ast.Name) and one.func.id == "Experiment"), None)
    if call is None:
        raise ConfigurationError(f"{script} declares no Experiment")
    try:
        words = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg in ("title", "servers")}
        return Declared(script, (ast.get_docstring(tree) or "").partition("\n\n")[0], **words)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{script}: title and servers of an Experiment are literals: {error}") from error


def _read(path: Path) -> Lab:
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        return Lab(folder=path.parent, **{**fields, "tour": tuple(fields["tour"])})
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{path} is not a lab: {error}") from error
