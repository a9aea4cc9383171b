"""Sending to a broker that is away: an error in time, never a process that hangs."""

from contextlib import closing

import pytest
from saga.transport import TABLES, NotSent, Outlet, advance, offsets

from shared.postgres import connect
from shared.servers.server import Endpoint

AWAY = Endpoint("kafka", "127.0.0.1:1", "yours", {"log_level": "2"})  # quiet: it is meant to be away
FULL_WITH_ONE = {"queue_buffering_max_messages": 1, "message_timeout_ms": 300}


def test_what_finds_no_room_while_the_broker_is_away_is_not_sent() -> None:
    with closing(Outlet(AWAY, settings=FULL_WITH_ONE)) as outlet:
        outlet.put("topic", b"", "first", [])
        with pytest.raises(NotSent, match="the broker did not take a message"):
            outlet.put("topic", b"", "second", [])


def test_flush_waits_so_long_and_no_longer() -> None:
    with closing(Outlet(AWAY)) as outlet:
        outlet.put("topic", b"", "first", [])
        with pytest.raises(NotSent, match=r"1 messages are not with the broker after 0\.1 s"):
            outlet.flush(0.1)


def test_who_writes_its_place_late_does_not_move_it_back(schema: str) -> None:
    with connect(schema) as connection:
        connection.execute(TABLES)
        for place in (7, 9, 8):  # the last by a reader that was thought dead
            advance(connection, {("topic", 0): place, ("topic", place): 1})
        assert offsets(connection) == {("topic", 0): 9, ("topic", 7): 1, ("topic", 9): 1, ("topic", 8): 1}
