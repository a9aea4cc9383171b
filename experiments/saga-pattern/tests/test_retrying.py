"""Retries that keep a service down, retries that let it recover, and a consumer that a message kills."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from saga.messaging import Topics, Unreadable
from saga.orchestrator.definition import Retry
from saga.order import Action, Request, World, orders
from saga.services.host import prepare
from saga.services.shop import Services
from saga.stage import poison
from saga.stage.fates import FatedShop
from saga.stage.foreign import odd
from saga.stage.retrying import Call, Rush, Times, policies, port_of, provide, rush
from saga.transport import Outlet
from saga.wrong import consuming

from shared import codec
from shared.kafka import delete_topics
from shared.servers.server import Endpoint
from shared.worker import Worker

LIMITS = Times(service=0.005, timeout=0.05, patience=3.2)  # ten answers in time
POLICIES = policies(first=0.05, longest=0.8)


@contextmanager
def provider(shop: FatedShop, folder: Path) -> Iterator[int]:
    """A service of limited capacity; gives its port."""
    with Worker("service", folder / "service.log", provide, shop, LIMITS.service, folder / "port"):
        yield port_of(folder / "port")


def rushed(shop: FatedShop, folder: Path, policy: str, sagas: int, **limits: float) -> Rush:
    made = list(orders(3, sagas, World()))
    with provider(shop, folder) as port:
        return asyncio.run(rush(port, made, POLICIES[policy], replace(LIMITS, **limits)))


def test_within_its_capacity_the_service_answers_everybody_at_the_first_call(shop: FatedShop, tmp_path: Path) -> None:
    seen = rushed(shop, tmp_path, "no retry", sagas=4, timeout=10)
    assert len(seen.served) == len(seen.calls) == 4
    assert seen.vain == []


def test_retried_at_once_an_overloaded_service_does_not_recover(shop: FatedShop, tmp_path: Path) -> None:
    seen = rushed(shop, tmp_path, "retry at once", sagas=80)  # a caller that stands still has ten more served
    assert len(seen.served) < 80 < 100 < len(seen.calls)
    assert len(seen.vain) > len(seen.served)


def test_with_backoff_and_jitter_everybody_is_served_and_charged_once(
    shop: FatedShop, services: Services, tmp_path: Path
) -> None:
    seen = rushed(shop, tmp_path, "backoff and jitter", sagas=20, patience=20)
    assert len(seen.served) == 20 < len(seen.calls)  # it was overloaded
    rows = services.connections["payments"].execute("select order_id, charged from charges").fetchall()
    assert dict(rows) == dict.fromkeys(seen.served, 1)


def test_calls_that_are_none_are_put_aside_and_the_next_is_answered(shop: FatedShop, tmp_path: Path) -> None:
    made = next(orders(3, 1, World()))
    calls = [b"", b"1234", *odd(made).values(), codec.encode(Request(made.id, Action.SHIP, made))]
    with provider(shop, tmp_path) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        for call in calls:
            caller.sendto(b"\0\0\0\1" + call, ("127.0.0.1", port))
        assert asyncio.run(rush(port, [made], POLICIES["fixed pause"], LIMITS)).served.keys() == {made.id}
    assert (tmp_path / "service.log").read_text().count("put aside: ") == len(calls)


@pytest.mark.parametrize(("jitter", "instants"), [(0.0, 1), (0.5, 50)])
def test_jitter_spreads_those_who_failed_together(jitter: float, instants: int) -> None:
    retry = Retry(first=0.1, factor=2, jitter=jitter)
    pauses = {retry.pause(3, f"saga-{number}") for number in range(50)}
    assert len(pauses) == instants
    assert min(pauses) >= 0.4 * (1 - jitter)
    assert max(pauses) <= 0.4


def test_the_load_is_calls_per_second() -> None:
    calls = [Call("order", number, at, answered=False) for number, at in enumerate((0.0, 0.1, 0.9), 1)]
    assert Rush(1, calls).load(seconds=1.0, bins=2) == [4.0, 2.0]


def test_the_spread_is_of_attempts_of_the_same_number() -> None:
    calls = [Call("order", number, at, answered=False) for number, at in ((1, 0.0), (2, 0.25), (2, 0.75))]
    assert (Rush(1, calls).spread(1), Rush(1, calls).spread(2), Rush(1).spread(2)) == (0.0, 0.5, 0.0)


def test_an_answer_is_in_vain_that_comes_when_nobody_waits_for_it() -> None:
    seen = Rush(2, served={"first": 0.1, "second": 0.7}, vain=[0.4, 0.6, 0.8, 0.9])
    assert (seen.in_vain(0.0), seen.in_vain(0.5), seen.in_vain(1.0)) == (4 / 6, 3 / 4, 0.0)


def test_a_consumer_that_dies_of_a_message_never_comes_to_those_behind_it(
    shop: FatedShop, services: Services, kafka: Endpoint, unique: str
) -> None:
    topics, made = Topics(unique), list(orders(3, 5, World()))
    topics.create(kafka, partitions=1)
    prepare(shop)
    outlet = Outlet(kafka)
    outlet.send(poison.commands(topics, Action.PLACE, made, poisoned=2))
    outlet.flush()
    for _ in range(2):
        with pytest.raises(Unreadable, match="not a request"):
            consuming.careless(shop, topics, kafka, "orders")
    rows = services.connections["orders"].execute("select id from orders order by id").fetchall()
    assert [ident for (ident,) in rows] == [order.id for order in made[:2]]
    delete_topics(kafka, unique)
