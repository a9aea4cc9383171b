"""A shop per test, and an orchestrator for it on topics of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from saga.messaging import Topics
from saga.orchestrator.definition import Definition, Retry, read, timed
from saga.order import Order, World, orders
from saga.services import shop as shops
from saga.services.shop import Services
from saga.stage.fates import KIND, FatedShop
from saga.stage.fates import create as create_shop
from saga.stage.in_process import Ensemble, staged

from shared import kafka as kafka_helpers
from shared.servers.server import Endpoint
from shared.worker import Worker

# What is asked again is asked soon, and for longer than a busy machine takes to start a process.
QUICK = Retry(attempts=400, first=0.02, factor=2.0, longest=0.2, jitter=0.5)


@pytest.fixture
def shop(postgres: Endpoint, unique: str) -> Iterator[FatedShop]:
    """The four services' databases, in which nothing ever goes wrong: `replace(shop, fates=...)` changes that."""
    yield create_shop(postgres, unique, KIND)
    shops.drop(postgres, unique)


@pytest.fixture
def services(shop: FatedShop) -> Iterator[Services]:
    """The services, to be called directly."""
    with shop.open() as opened:
        yield opened


@pytest.fixture
def order() -> Order:
    return next(orders(7, 1, World()))


@pytest.fixture
def quick() -> Definition:
    """The order saga, which asks again soon: only a refusal has it compensated."""
    return timed(read(), attempt=0.3, retry=QUICK, whole=120.0)


@pytest.fixture
def topics(kafka: Endpoint, unique: str) -> Iterator[Topics]:
    """Topics of an orchestrator, with two partitions each."""
    made = Topics(f"{unique}.own")
    made.create(kafka, partitions=2)
    yield made
    kafka_helpers.delete_topics(kafka, unique)


@pytest.fixture
def stage(schema: str, kafka: Endpoint, topics: Topics, shop: FatedShop, quick: Definition) -> Iterator[Ensemble]:
    """Orchestrator and services in this process."""
    with staged(schema, kafka, topics, shop, quick) as opened:
        yield opened


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """As Run.worker: started processes, stopped at the end."""
    workers: list[Worker] = []

    def start(name: str, target: Callable[..., None], *arguments: object) -> Worker:
        workers.append(Worker(name, tmp_path / f"{name}.log", target, *arguments).start())
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()
