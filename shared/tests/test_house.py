"""The rules of the house, held against every committed file."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from shared import errors
from shared.commands.documents import made_documents
from shared.report import syllabus
from shared.settings import ROOT

MODULE_LINES, STAGE_LINES, SCRIPT_LINES, FUNCTION_LINES, TOPICS = 300, 600, 240, 50, 265
# The four floors: a module imports from its own floor and from those below it.
# The rooms of a lab's package below its pattern, and what of shared only experiments need.
ROOMS = {"wrong", "lessons", "stage"}
EXPERIMENTAL = {"about", "history", "run", "worker", "tap", "checkers", "experiment", "workload", "faults"}
FLOORS = (
    {"errors"},
    {
        *("attributes", "codec", "event", "files", "history", "home", "kafka", "postgres", "session", "snapshot"),
        *("plain", "record", "servers", "settings", "signals", "wait"),
    },
    {
        *(
            "about",
            "checkers",
            "contrast",
            "ending",
            "environment",
            "evidence",
            "experiment",
            "faults",
            "figures",
            "gates",
            "labs",
            "moving",
            "mutations",
            "operator",
            "output",
        ),
        *("proxy", "report", "run", "size", "tap", "targets", "threads", "usage", "worker", "workload"),
    },
    {"benchmarks", "cli", "commands", "pytest_plugin", "smoke", "tests"},
)
# Hosts from which packages come: a mirror is the user's choice. Built from parts, or this file would name them.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("packages", "confluent", "io"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("crates", "io"),
        ("deb", "debian", "org"),
    )
]
MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:home|Users|root|work)/\w+")
TREE_LINE = re.compile(r"([│├└─ ]*)([A-Z]\w+) {2,}")


@cache
def committed(*patterns: str) -> tuple[Path, ...]:
    """Files that git has or would take, of these patterns."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(path for path in (ROOT / name for name in listed) if path.is_file())


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def modules() -> tuple[Path, ...]:
    return committed("*.py")


def at(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def nodes(path: Path, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, kinds))


def imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every module that a file imports, with its members: `from shared import kafka` is shared.kafka."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = node.module == "shared"
            yield from ((f"shared.{alias.name}" if inner else node.module, node) for alias in node.names)


def floor(module: str) -> int:
    """The floor of a module of shared. A module that is on none has to be put on one, above."""
    room = module.split(".")[1]
    [found] = [number for number, rooms in enumerate(FLOORS) if room in rooms] or pytest.fail(f"{module} has no floor")
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def packages() -> dict[str, Path]:
    """The package of each lab, by name."""
    return {path.parent.name: path.parents[1] for path in committed("experiments/*/*/__init__.py")}


def topics() -> list[str]:
    return [topic.id for part in syllabus.read(ROOT / "docs" / "syllabus.yaml") for topic in part.topics]


def scripts() -> list[Path]:
    return [path for path in committed("experiments/*/*.py") if re.match(r"\d\d_", path.name)]


def named_topics(path: Path) -> set[str]:
    """Strings in a script that look like a topic's id."""
    strings = (node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant))
    return {text for text in strings if isinstance(text, str) and re.fullmatch(r"I\.\d+/[\w-]+/[\w-]+", text)}


def room(path: Path) -> str:
    """Which room of its lab's package a module is in: wrong, lessons, stage, or the pattern."""
    inner = path.relative_to(ROOT / "experiments").parts[2:-1]
    return inner[0] if inner and inner[0] in ROOMS else "pattern"


def packaged() -> list[Path]:
    """Modules of the labs' packages: no scripts, and no tests."""
    return [path for path in committed("experiments/*/*/*.py") if "tests" not in path.parts]


def leaks(path: Path, rooms: set[str], shared: set[str]) -> list[str]:
    """What the module imports of these rooms of its own package, and of these of shared."""
    package = path.relative_to(ROOT / "experiments").parts[1]
    found = []
    for module, node in imports(path):
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        inner = module.split(".")[1:2] or (names if module == package else [])
        unwanted = {package: rooms, "shared": shared}.get(module.split(".")[0], set())
        if unwanted.intersection(inner):
            found.append(f"{at(path, node)} {module}")
    return found


def longest(path: Path) -> int:
    """How many lines a file of this kind has at most: a script is read at one go, a stage is looked things up in."""
    kinds = {"stage" in path.parts: STAGE_LINES, path in scripts(): SCRIPT_LINES}
    return kinds.get(True, MODULE_LINES)


def test_no_module_is_too_long() -> None:
    most = {path: longest(path) for path in modules()}
    long = [path for path in most if "tests" not in path.parts and path.read_text().count("\n") > most[path]]
    assert long == []


def test_no_function_is_too_long() -> None:
    functions = ((path, node) for path in modules() for node in nodes(path, ast.FunctionDef, ast.AsyncFunctionDef))
    long = [at(path, node) for path, node in functions if lines(node) > FUNCTION_LINES]
    assert long == []


def lines(node: ast.AST) -> int:
    return int(getattr(node, "end_lineno", 0)) - int(getattr(node, "lineno", 0)) + 1


def test_imports_of_shared_only_go_down() -> None:
    wrong = [
        f"{at(path, node)} imports {name}"
        for path in committed("shared/*.py")
        if path != ROOT / "shared" / "__init__.py"
        for name, node in imports(path)
        if name.startswith("shared.") and floor(name) > floor(module_of(path))
    ]
    assert wrong == []


def test_shared_never_imports_a_lab() -> None:
    labs = packages()
    found = ((path, name, node) for path in committed("shared/*.py") for name, node in imports(path))
    assert labs
    assert [at(path, node) for path, name, node in found if name.split(".")[0] in labs] == []


def test_the_pattern_imports_no_wrong_way_no_stage_and_nothing_that_only_experiments_need() -> None:
    pattern = [path for path in packaged() if room(path) == "pattern"]
    assert [leak for path in pattern for leak in leaks(path, ROOMS, EXPERIMENTAL)] == []


def test_the_wrong_ways_import_the_pattern_and_no_stage() -> None:
    wrong = [path for path in packaged() if room(path) == "wrong"]
    assert [leak for path in wrong for leak in leaks(path, {"stage", "lessons"}, set())] == []


def test_labs_never_import_each_other() -> None:
    wrong = [
        at(path, node)
        for path in committed("experiments/*.py")
        for name, node in imports(path)
        if (home := packages().get(name.split(".")[0])) and not path.is_relative_to(home)
    ]
    assert wrong == []


def test_no_error_is_swallowed_unseen() -> None:
    handlers = ((path, node) for path in modules() for node in nodes(path, ast.ExceptHandler))
    assert [at(path, node) for path, node in handlers if is_silent(node)] == []


def is_silent(handler: ast.AST) -> bool:
    body = getattr(handler, "body", [])
    return all(isinstance(node, ast.Pass) for node in body)


def test_no_test_sleeps() -> None:
    tests = (path for path in modules() if "tests" in path.parts)
    calls = ((path, node) for path in tests for node in nodes(path, ast.Call) if isinstance(node, ast.Call))
    assert [at(path, call) for path, call in calls if ast.unparse(call.func).split(".")[-1] == "sleep"] == []


@pytest.mark.parametrize("host", REGISTRIES)
def test_no_file_names_the_host_of_a_package_registry(host: str) -> None:
    assert [path for path in committed() if host.encode() in path.read_bytes()] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    """What concerns containers may name paths inside of them."""
    files = [path for path in committed() if not re.search("docker|compose", path.relative_to(ROOT).as_posix())]
    found = {path: MACHINE_PATH.findall(path.read_bytes().decode(errors="replace")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_syllabus_has_all_its_topics_each_once() -> None:
    assert len(topics()) == len(set(topics())) == TOPICS


@pytest.mark.parametrize("script", scripts(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_topic_of_an_experiment_is_in_the_syllabus(script: Path) -> None:
    named = named_topics(script)
    assert named
    assert named <= set(topics())


@pytest.mark.parametrize("script", scripts(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_topics_of_an_experiment_are_of_its_own_section(script: Path) -> None:
    [section] = [part for part in syllabus.read(ROOT / "docs" / "syllabus.yaml") if part.lab == script.parent.name]
    assert {topic.split("/")[0] for topic in named_topics(script)} == {section.id}


def test_documents_that_are_made_of_the_evidence_are_as_the_evidence_is() -> None:
    stale = [path for path, text in made_documents().items() if path.read_text(encoding="utf-8") != text]
    assert stale == []


def test_every_error_is_drawn_in_its_tree_below_its_base() -> None:
    assert drawn() == {
        kind.__name__: kind.__base__.__name__ if kind is not errors.LabError else ""
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.LabError) and kind.__base__
    }


def drawn() -> dict[str, str]:
    """Error -> its base, as the docstring draws them."""
    path: list[str] = []
    found = {}
    for match in filter(None, map(TREE_LINE.match, (errors.__doc__ or "").splitlines())):
        depth = len(match[1]) // 4
        path[depth:] = [match[2]]
        found[match[2]] = path[depth - 1] if depth else ""
    return found
