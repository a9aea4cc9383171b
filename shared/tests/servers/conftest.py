"""What the tests of servers share."""

from collections.abc import Iterator

import pytest

from shared.tests.servers.lab import Lab, new_lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A home of the test's own, on ports of its own; no process of it outlives the test."""
    with new_lab() as made:
        yield made
