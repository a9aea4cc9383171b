"""Snapshots as values, against Postgres' own word on them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.snapshot import NOTHING, Snapshot

NUMBERS = st.integers(1, 40)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """As Postgres makes them: what is listed lies from xmin on and below xmax."""
    xmin, xmax = sorted((draw(NUMBERS), draw(NUMBERS)))
    return Snapshot(xmin, xmax, tuple(sorted(draw(st.sets(st.integers(xmin, xmax - 1)))) if xmin < xmax else ()))


@given(snapshots())
def test_its_text_is_read_back_equal(snapshot: Snapshot) -> None:
    assert Snapshot.parse(str(snapshot)) == snapshot


@settings(deadline=None)
@given(taken=st.lists(snapshots(), min_size=1, max_size=30))
def test_it_sees_what_postgres_says_that_it_sees(postgres: Endpoint, taken: list[Snapshot]) -> None:
    query = """
    select array(select pg_visible_in_snapshot(xid::text::xid8, snapshot::pg_snapshot) from generate_series(1, 41) xid)
    from unnest(%s::text[]) with ordinality as taken (snapshot, place) order by place
    """
    with connect(postgres.url) as connection:
        found = connection.execute(query, [list(map(str, taken))]).fetchall()
    assert [row[0] for row in found] == [[one.sees(number) for number in range(1, 42)] for one in taken]


@given(snapshots(), snapshots())
def test_what_has_ended_since_is_what_the_later_one_sees_of_those_open_in_the_earlier(
    earlier: Snapshot, later: Snapshot
) -> None:
    between = [xid for xid in range(1, earlier.xmax) if later.sees(xid) and not earlier.sees(xid)]
    assert later.ended_since(earlier) == between


def test_nothing_sees_nothing() -> None:
    assert not any(map(NOTHING.sees, range(1, 100)))


@pytest.mark.parametrize("text", ["", "1:2", "a:2:", "1:2:3,x"])
def test_what_is_no_snapshot_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        Snapshot.parse(text)
