"""How long does it take to have the servers, from nothing and the second time, and how much memory do they hold?

Everything in a folder and on ports of its own. `full` also starts with an empty download cache: it needs the network.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shared.experiment import Experiment, Run
from shared.servers import native
from shared.servers.catalogue import SERVERS
from shared.servers.stack import Stack

experiment = Experiment(title="Starting and stopping servers")
THREE = "postgres", "kafka", "connect"
FIVE = *THREE, "temporal", "registry"


@experiment.run
def main(run: Run) -> None:
    times = run.pick(1, 3, 5)
    if run.pick(False, False, True):
        with run.step("empty caches: fetch, start, stop and make the start-up caches"):
            cold(run)
    with run.step("once, uncounted: makes the start-up caches where there are none"):
        stack = stack_in(run, "first")
        stack.up(FIVE)
        stack.down(clean=True)
    for names in (THREE, FIVE):
        with run.step(f"warm: {len(names)} servers, {times} times"):
            warm(run, names, times)
    run.claim("three servers are up within 8 s", value(run, "start of 3 servers, warm") <= 8)
    run.claim("five servers are up within 15 s", value(run, "start of 5 servers, warm") <= 15)
    run.claim("three servers hold at most 900 MB", value(run, "memory of 3 servers") <= 900)
    run.claim("all are down within 5 s", value(run, "stop of 5 servers, warm") <= 5)


def cold(run: Run) -> None:
    """The first time on a machine."""
    stack = stack_in(run, "cold", cache=run.folder / "cache")
    began = time.monotonic()
    stack.up(FIVE)
    run.figure("start of 5 servers, empty caches, with the download", time.monotonic() - began, "s")
    downloaded = sum(pin.size for pin in stack.pins(SERVERS[name] for name in FIVE)) / 1e6
    run.figure("Java files fetched", downloaded, "MB")
    began = time.monotonic()
    stack.down(clean=True)
    run.figure("first stop, with the making of start-up caches", time.monotonic() - began, "s")


def warm(run: Run, names: Sequence[str], times: int) -> None:
    """Fresh data every time, downloads and start-up caches from before."""
    starts, stops, memory = [], [], []
    single: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(times):
        stack = stack_in(run, "warm")
        began = time.monotonic()
        stack.up(names)
        starts.append(time.monotonic() - began)
        states = {state.server: state for state in stack.status() if state.state == "running"}
        memory.append(sum(state.rss_mb for state in states.values()))
        for name in names:
            single[name].append(states[name].seconds)
        began = time.monotonic()
        stack.down(clean=True)
        stops.append(time.monotonic() - began)
    run.figure(f"start of {len(names)} servers, warm", starts, "s")
    run.figure(f"stop of {len(names)} servers, warm", stops, "s")
    run.figure(f"memory of {len(names)} servers", memory, "MB")
    for name in names:
        run.figure(f"answers after, {len(names)} at once", single[name], "s", variant=name)


def stack_in(run: Run, name: str, cache: Path | None = None) -> Stack:
    settings = run.stack.settings
    roles = {f"{server.name} {role}": port for server in SERVERS.values() for role, port in server.ports.items()}
    ports = native.free_ports(roles)
    values = {_variable(*place.split()): str(port) for place, port in ports.items()}
    own = replace(settings, home=run.folder / name, cache=cache or settings.cache, values=values)
    return Stack(own)


def _variable(server: str, role: str) -> str:
    return f"{server.upper().replace('-', '_')}{'' if role == 'client' else '_' + role.upper()}_PORT"


def value(run: Run, name: str) -> float:
    return next(figure.value for figure in run.figures if figure.name == name)


if __name__ == "__main__":
    experiment.main()
