"""On what the shown runs ran, in a few lines: one value where all agree, all of them or the range where not."""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from shared.record import Environment
from shared.report.words import number


def surroundings(environments: Sequence[Environment]) -> list[tuple[str, str]]:
    """(name, text) in reading order, for at least one environment."""
    rows = [
        ("CPUs", _distinct(f"{found.cpus}" for found in environments)),
        ("Memory", f"{_range(environments, attrgetter('memory_gb'))} GB"),
        ("Python", _distinct(found.python for found in environments)),
        ("Platform", _distinct(found.platform for found in environments)),
        ("fsync, median", f"{_range(environments, attrgetter('fsync_ms'))} ms"),
        ("Load at start", _range(environments, attrgetter("load"))),
        ("Commit", _distinct(found.commit[:12] for found in environments)),
        ("Servers", _distinct(f"{name} {text}" for found in environments for name, text in found.servers.items())),
    ]
    return [(name, text) for name, text in rows if text]


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, texts)))


def _range(environments: Sequence[Environment], measure: Callable[[Environment], float]) -> str:
    values = [measure(found) for found in environments]
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low}–{high}"
