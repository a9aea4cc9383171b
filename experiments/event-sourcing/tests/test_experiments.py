"""Every experiment of the lab, small: it holds, and what its topics promise is claimed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.servers.server import Endpoint
from shared.smoke import Smoke

SMOKE = Smoke("event-sourcing")


@pytest.mark.slow
@pytest.mark.parametrize("script", SMOKE.scripts, ids=lambda script: script.stem)
def test_it_holds_at_scale_smoke(
    script: Path, request: pytest.FixtureRequest, server: Callable[[str], Endpoint]
) -> None:
    SMOKE.check(script, request, server)
