"""The claim about orders that nobody can read, the same for every engine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saga.order import World, orders
from saga.services.invariant import Ending, judge
from saga.stage.engines import Opener, Site
from saga.stage.fates import open_shop
from saga.stage.foreign import Foreign, between
from shared.run import Run
from shared.servers.server import Endpoint

KINDS = "Latin-1 (Logprep#640), too deep (msgspec#646), half a character (eliza#18079), a NUL, cut off, NaN (nab#1007)"


def claim_foreign(
    run: Run,
    name: str,
    opened: Opener,
    foreign: Callable[[Any], Foreign],
    topics: Sequence[str],
    endpoints: Mapping[str, Endpoint] | None = None,
    variant: str = "",
) -> None:
    """On an engine of its own: a good order, one of each odd kind, another good order."""
    slug = f"foreign_{name.lower().replace(' ', '_')}"
    shop, good = open_shop(run, slug), list(orders(run.seed, 2, World(), "good"))
    site = Site(shop, f"{run.name}_{slug}", endpoints or run.endpoints, run.folder, run.worker, keep=run.keep)
    with opened(site) as engine:
        played = between(engine, foreign(engine), good)
    endings = judge(shop).endings
    run.claim(
        f"{name}: unreadable orders wait with their reasons, and the good orders before and after them are carried"
        f" out: {KINDS}",
        played.hold and endings == {order.id: Ending.COMPLETE for order in good},
        topics=topics,
        fact=f"{len(played.reasons)} of {played.odd} wait, {len(endings)} of {len(good)} others complete:"
        f" {min(played.reasons, key=len)}",
        variant=variant or name,
    )
