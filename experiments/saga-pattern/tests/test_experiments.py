"""Every experiment of the lab, small: it holds, and what its topics promise is claimed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.servers.server import Endpoint
from shared.smoke import Smoke

SMOKE = Smoke("saga-pattern", side_by_side=("05", "04", "16", "09", "12", "03", "06", "02", "01", "08"))


@pytest.mark.slow
@pytest.mark.timeout(600)  # several run side by side, and the first has the time of all
@pytest.mark.parametrize("script", SMOKE.scripts, ids=lambda script: script.stem)
def test_it_holds_at_scale_smoke(
    script: Path, request: pytest.FixtureRequest, server: Callable[[str], Endpoint]
) -> None:
    SMOKE.check(script, request, server)
