"""A shop for a run of an experiment."""

from saga.order import World
from saga.services.shop import Shop, create, drop
from saga.stage.fates import KIND, Fates
from shared.run import Run


def open_shop(run: Run, name: str, fates: Fates = KIND, world: World | None = None) -> Shop:
    """The shop `<run>_<name>`. Its schemas are gone at the end of the run, unless they are kept for a look."""
    server, prefix = run.endpoints["postgres"], f"{run.name}_{name}"
    if not run.keep:
        run.cleanup(lambda: drop(server, prefix))
    return create(server, prefix, fates, world)
