"""lab run."""

from typing import Annotated

import typer

from shared import labs
from shared.commands.repeating import repeat
from shared.commands.running import ProviderOption, ScaleOption, SeedOption, on_servers, options, run_all
from shared.run import Scale


def run(
    targets: Annotated[list[str] | None, typer.Argument(metavar="[LAB | LAB/NUMBER]...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every experiment of every lab")] = False,
    scale: ScaleOption = Scale.DEMO,
    seed: SeedOption = None,
    provider: ProviderOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="leave schema, topics and servers for a look")] = False,
    times: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="with N seeds, a line for each")] = 1,
) -> None:
    """Run experiments; exits 1 when a claim does not hold.

    With --repeat, the record of the first seed that failed is kept, and how to repeat it is said.
    """
    names = [lab.name for lab in labs.labs()] if everything else targets
    if not names:
        raise typer.BadParameter("name a lab or an experiment (see `lab list`), or say --all")
    scripts, flags = list(labs.scripts(names)), ["--keep"] * keep
    if times == 1:
        raise typer.Exit(0 if run_all(scripts, options(scale, seed, provider, *flags), provider) else 1)
    words = options(scale, None, provider, *flags)
    held = on_servers(scripts, provider, keep, lambda: [repeat(script, words, seed, times) for script in scripts])
    raise typer.Exit(0 if all(held) else 1)
