"""The labs of the house, found in their folders: `experiments/<lab>/lab.toml` and the numbered scripts beside it."""

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.errors import ConfigurationError
from shared.experiment import Experiment
from shared.settings import ROOT

FOLDER = ROOT / "experiments"


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
    def experiments(self) -> list[Experiment]:
        """Its experiments, by loading the scripts (which runs nothing)."""
        return [load(script) for script in self.scripts]

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


def load(script: Path) -> Experiment:
    """The experiment that a script declares. Raises ConfigurationError when it declares none."""
    name = f"experiment_{script.parent.name}_{script.stem}".replace("-", "_")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, script)
        if spec is None or spec.loader is None:
            raise ConfigurationError(f"{script} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # before it runs: dataclasses look their module up
        spec.loader.exec_module(module)
    for value in vars(sys.modules[name]).values():
        if isinstance(value, Experiment):
            return value
    raise ConfigurationError(f"{script} declares no Experiment")


def _read(path: Path) -> Lab:
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        return Lab(folder=path.parent, **{**fields, "tour": tuple(fields["tour"])})
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{path} is not a lab: {error}") from error
