"""Every store, and the same questions to each. What a store cannot do, it says, and refuses."""

import runpy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from sourcing.stage.contract import Question, Subject, ask, subjects
from sourcing.stage.questions import ALL_QUESTIONS
from sourcing.stores import STORES, created

from shared.errors import NotAvailable
from shared.pytest_plugin import Starter
from shared.servers.server import Endpoint

# Fakes of the wire protocol, for the adapters of the two servers that not every machine can have.
FAKES = {"EventStoreDB": "fake_kurrentdb.py", "Axon Server": "fake_axon.py"}
CANDIDATES = [*STORES, *(f"{kind} (fake)" for kind in FAKES)]
Asked = Callable[[str], Subject]


@pytest.fixture(scope="module", params=CANDIDATES)
def subject(request: pytest.FixtureRequest, server: Starter) -> Iterator[Asked]:
    """A function from an unused stream's name to the store that is asked."""
    kind, fake, _ = request.param.partition(" (fake)")
    with ExitStack() as things:
        if fake:
            serving = runpy.run_path(str(Path(__file__).with_name(FAKES[kind])))["serving"]
            _, address = things.enter_context(serving())
            endpoint = Endpoint(STORES[kind].server, address, "yours")
        else:
            endpoint = None
        try:
            endpoint = endpoint or server(STORES[kind].server)
            store = things.enter_context(created(kind, endpoint, f"lab_test_{uuid4().hex[:10]}"))
        except NotAvailable as error:
            pytest.skip(str(error))
        yield things.enter_context(subjects(store))


@pytest.mark.timeout(600)  # where Docker runs, images may have to come first
@pytest.mark.parametrize("question", ALL_QUESTIONS, ids=lambda question: question.__name__)
def test_store_answers(subject: Asked, question: Question) -> None:
    ask(question, subject(f"order{uuid4().hex[:8]}-1"))
