"""The engines as they are compared: how each is brought up, the servers that it needs, and the code that it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from saga.engines.camunda.worker import Policy
from saga.engines.temporal.messages import Limits
from saga.orchestrator.definition import Retry, read
from saga.stage.engines import Opener, camunda, choreography, dbos, own, stepfunctions, temporal
from shared.run import Run
from shared.servers.server import Endpoint
from shared.size import data_lines, size

HERE = Path(__file__).parents[1]
# Of a compensation, until it is left to an operator. Step Functions has its own in its state machine.
UNDO_ATTEMPTS = 6
OURS = msgspec.structs.replace(read(), undo_retry=Retry(attempts=UNDO_ATTEMPTS))


@dataclass(frozen=True)
class Contender:
    """An engine that takes part.

    `servers` are all that it is given, beside the databases of the services; `at_once` is how many sagas at once suit
    it. `decides` says whether it undoes a step of which nobody knows whether it was done. `code` and `data`, as
    patterns of paths, are what a reader would copy of it, beyond the services, which are the same for all: neither what
    a server or a library brings, nor what only stages it here, behind the port or for a kill.
    """

    name: str
    opened: Opener
    servers: tuple[str, ...]
    at_once: int
    code: tuple[str, ...]
    data: tuple[str, ...] = ()
    decides: bool = True

    @property
    def code_lines(self) -> int:
        return size(_found(self.code)).lines

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
        *(f"orchestrator/{name}.py" for name in ("definition", "machine", "office", "operator")),
        *(f"orchestrator/{name}.py" for name in ("shares", "store", "worker")),
        *("messaging.py", "transport.py", "services/host.py"),
    ),
    data=("orchestrator/schema.sql", "orchestrator/order.toml"),
)
# What batches in the services are worth: without them, a step costs what it costs the other engines.
SINGLY = replace(OWN, name="own, a commit for each step", opened=partial(own.opened, definition=OURS, most=1))
DBOS = Contender(
    "DBOS",
    partial(dbos.opened, undo_attempts=UNDO_ATTEMPTS),
    ("postgres",),
    at_once=40,
    code=("engines/dbos.py", "stage/engines/dbos.py"),  # the latter has its client
)
TEMPORAL = Contender(
    "Temporal",
    partial(temporal.opened, limits=Limits(undo_attempts=UNDO_ATTEMPTS)),
    ("temporal",),
    at_once=20,
    code=(
        *(
            f"engines/temporal/{name}.py"
            for name in ("activities", "client", "histories", "messages", "worker", "workflow")
        ),
    ),
)
CAMUNDA = Contender(
    "Camunda 7",
    partial(camunda.opened, policy=Policy(undo_attempts=UNDO_ATTEMPTS)),
    ("camunda",),
    at_once=20,
    code=("engines/camunda/client.py", "engines/camunda/worker.py", "engines/side_by_side.py"),
    data=("engines/camunda/order.bpmn",),
)
STATES = Contender(
    "Step Functions",
    stepfunctions.opened,
    ("moto",),
    at_once=20,
    code=("engines/stepfunctions/client.py", "engines/stepfunctions/worker.py", "engines/side_by_side.py"),
    data=("engines/stepfunctions/order.asl.json",),
)
CHOREOGRAPHY = Contender(
    "choreography",
    choreography.opened,
    ("postgres", "kafka"),
    at_once=100,
    code=(
        *(f"choreography/{name}.py" for name in ("machine", "service", "store", "wire")),
        *("messaging.py", "transport.py"),
    ),
    data=("choreography/schema.sql",),
    decides=False,
)
SAME = frozenset({"services/effects.py", "services/participant.py", "services/shop.py"})  # for all
CONTENDERS = OWN, CHOREOGRAPHY, DBOS, TEMPORAL, CAMUNDA, STATES


def gather(run: Run, given: Mapping[str, Endpoint], more: bool = True) -> dict[Contender, dict[str, Endpoint]]:
    """The engines that can be had here, each with the endpoints of its servers, and no other.

    With `more`, a server that is not given is looked for among the labs' own (`Run.optional`).
    """
    there = dict(given)
    for contender in CONTENDERS:
        for server in set(contender.servers) - given.keys() if more else ():
            if endpoint := run.optional(server, f"sagas on {contender.name}"):
                there[server] = endpoint
    return {
        contender: {server: there[server] for server in contender.servers}
        for contender in CONTENDERS
        if there.keys() >= set(contender.servers)
    }
