"""Fixtures for tests against real servers: one by name, names of one's own for each test, and an instance to kill.

Servers that run already are used (and left alone); others are started for the session and stopped at its end.
"""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from uuid import uuid4

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as properties

from shared import kafka as kafka_helpers
from shared import postgres as postgres_helpers
from shared.history import Recorder
from shared.servers.catalogue import find
from shared.servers.handle import Handle, own_instance
from shared.servers.server import Endpoint
from shared.servers.stack import Stack
from shared.settings import Settings

Starter = Callable[[str], Endpoint]
OwnStarter = Callable[..., Handle]
_unexplained: list[str] = []


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings.load()


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[Starter]:
    """A function from a server's name to its endpoint, which starts it if nobody has."""
    stack = Stack(settings)
    with ExitStack() as borrowed:
        held: set[str] = set()

        def start(name: str) -> Endpoint:
            if name in held and (found := stack.find(name)):
                return found
            held.add(name)  # also one that runs: a run beside us may have started it, and would stop it
            return borrowed.enter_context(stack.borrowed([name]))[name]

        yield start


@pytest.fixture(scope="session")
def postgres(server: Starter) -> Endpoint:
    return server("postgres")


@pytest.fixture(scope="session")
def kafka(server: Starter) -> Endpoint:
    return server("kafka")


@pytest.fixture(scope="session")
def connect(kafka: Endpoint, server: Starter) -> Endpoint:
    return server("connect")


@pytest.fixture(scope="session")
def temporal(server: Starter) -> Endpoint:
    return server("temporal")


@pytest.fixture(scope="session")
def registry(server: Starter) -> Endpoint:
    return server("registry")


@pytest.fixture(scope="session")
def camunda(server: Starter) -> Endpoint:
    return server("camunda")


@pytest.fixture(scope="session")
def moto(server: Starter) -> Endpoint:
    return server("moto")


@pytest.fixture
def unique() -> str:
    """A name for what a test makes on servers that it shares with others."""
    return f"lab_test_{uuid4().hex[:10]}"


@pytest.fixture
def schema(postgres: Endpoint, unique: str) -> Iterator[str]:
    """An address (conninfo) whose sessions live in a fresh schema."""
    yield postgres_helpers.create_schema(postgres, unique)
    postgres_helpers.drop_schema(postgres, unique)


@pytest.fixture
def topic(kafka: Endpoint, unique: str) -> Iterator[Callable[..., str]]:
    """A function that creates a fresh topic and returns its name: topic("orders", partitions=3)."""

    def create(name: str = "events", partitions: int = 3) -> str:
        kafka_helpers.create_topics(kafka, [full := f"{unique}.{name}"], partitions)
        return full

    yield create
    kafka_helpers.delete_topics(kafka, unique)


@pytest.fixture
def own(settings: Settings) -> Iterator[OwnStarter]:
    """A function that starts a server of the test's own, on free ports, to be harmed: own("kafka")."""
    with ExitStack() as started:
        yield lambda name, needs=None, **overrides: started.enter_context(
            own_instance(name, settings, needs, find(name).spelled(overrides))
        )


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """An open history, in `recorder.path`."""
    with Recorder(tmp_path / "history.jsonl", "test") as opened:
        yield opened


def pytest_configure() -> None:
    # What a shell's background job or `nohup` ignores, every command would ignore that a test starts and interrupts: so
    # nothing stays ignored. A handler is not inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):  # they too end the session in order: what it started is stopped
        ignored = signal.getsignal(number) is signal.SIG_IGN
        signal.signal(number, _not_heeded if ignored else signal.default_int_handler)
    # How long an example takes is the machine's affair: by default, one of more than 200 ms is a failure.
    properties.register_profile("labs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    properties.load_profile("labs")


def _not_heeded(number: int, frame: FrameType | None) -> None:
    """As ignored as before, and not by those who are started from here."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--explained-skips", metavar="FILE", help="fail on a skip whose reason matches no line (a regex) of FILE"
    )


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _unexplained.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    file = session.config.getoption("--explained-skips")
    if not file:
        return
    lines = (line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines())
    patterns = [re.compile(line) for line in lines if line and not line.startswith("#")]
    wrong = [skip for skip in _unexplained if not any(pattern.search(skip) for pattern in patterns)]
    for skip in wrong:
        print(f"\nunexplained skip: {skip}")
    if wrong and session.exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With --reruns: what a test failed with before it passed is not lost."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"failed, and was run once more: {report.nodeid}")
        terminalreporter.line(report.longreprtext)


def pytest_unconfigure(config: pytest.Config) -> None:
    _unexplained.clear()
