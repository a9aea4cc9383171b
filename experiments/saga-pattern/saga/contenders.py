"""The engines as they are compared: how each is brought up, the servers that it needs, and the code that it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from saga.camunda.worker import Policy
from saga.engines import Opener, camunda, dbos, own, stepfunctions, temporal
from saga.measuring import code_lines, data_lines
from saga.orchestrator.definition import Retry, read
from saga.temporal.messages import Limits

HERE = Path(__file__).parent
UNDO_ATTEMPTS = (
    6  # attempts of a compensation, until it is left to an operator; Step Functions has its own in its state machine
)
OURS = msgspec.structs.replace(read(), undo_retry=Retry(attempts=UNDO_ATTEMPTS))


@dataclass(frozen=True)
class Contender:
    """An engine that takes part.

    `servers` are all that it is given, beside the databases of the services; `at_once` is how many sagas at once suit
    it. `code` and `data`, as patterns of paths, are all that this lab has of it beyond the services, which are the same
    for all: what a server or a library brings is not ours to write.
    """

    name: str
    opened: Opener
    servers: tuple[str, ...]
    at_once: int
    code: tuple[str, ...]
    data: tuple[str, ...] = ()

    @property
    def code_lines(self) -> int:
        return code_lines(_found(self.code))

    @property
    def data_lines(self) -> int:
        return data_lines(_found(self.data))


def _found(patterns: Iterable[str]) -> list[Path]:
    """Raises FileNotFoundError for a pattern that nothing meets: the figure would be too small."""
    paths = {pattern: list(HERE.glob(pattern)) for pattern in patterns}
    if gone := [pattern for pattern, found in paths.items() if not found]:
        raise FileNotFoundError(f"no module of the package is {', '.join(gone)}")
    return [path for found in paths.values() for path in found]


OWN = Contender(
    "own orchestrator",
    partial(own.opened, definition=OURS),
    ("postgres", "kafka"),
    at_once=100,
    code=(
        *(f"orchestrator/{name}.py" for name in ("definition", "machine", "office", "operator", "store", "worker")),
        *("messaging.py", "transport.py", "services/host.py", "engines/own.py"),
    ),
    data=("orchestrator/schema.sql", "orchestrator/order.toml"),
)
DBOS = Contender(
    "DBOS",
    partial(dbos.opened, undo_attempts=UNDO_ATTEMPTS),
    ("postgres",),
    at_once=40,
    code=("dbossaga.py", "engines/dbos.py"),
)
TEMPORAL = Contender(
    "Temporal",
    partial(temporal.opened, limits=Limits(undo_attempts=UNDO_ATTEMPTS)),
    ("temporal",),
    at_once=20,
    code=(
        *(f"temporal/{name}.py" for name in ("activities", "apart", "client", "messages", "worker", "workflow")),
        "engines/temporal.py",
    ),
)
CAMUNDA = Contender(
    "Camunda 7",
    partial(camunda.opened, policy=Policy(undo_attempts=UNDO_ATTEMPTS)),
    ("camunda",),
    at_once=20,
    code=("camunda/client.py", "camunda/worker.py", "engines/processes.py", "engines/camunda.py"),
    data=("camunda/order.bpmn",),
)
STATES = Contender(
    "Step Functions",
    stepfunctions.opened,
    ("moto",),
    at_once=20,
    code=("stepfunctions/client.py", "stepfunctions/worker.py", "engines/processes.py", "engines/stepfunctions.py"),
    data=("stepfunctions/order.asl.json",),
)
CONTENDERS = OWN, DBOS, TEMPORAL, CAMUNDA, STATES
