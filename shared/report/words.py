"""Numbers, times and names as the pages print them."""

import re
from hashlib import sha256

MINUTE = 60


def number(value: float) -> str:
    """Three significant digits, thousands separated, never an exponent: 0.00123, 12.3, 4,567."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = f"{value:.3g}"
    return digits if "e" not in digits else f"{value:.12f}".rstrip("0").rstrip(".")


def measured(value: float, unit: str) -> str:
    """A number with its unit, in one unbreakable piece."""
    return f"{number(value)}\N{NO-BREAK SPACE}{unit}" if unit else number(value)


def milliseconds(nanoseconds: int) -> str:
    """Nanoseconds as "12.3 ms"."""
    return measured(nanoseconds / 1e6, "ms")


def lasting(seconds: float) -> str:
    """Seconds as "4.2 s" or "2 min 5 s"."""
    if seconds < MINUTE:
        return measured(round(seconds, 1), "s")
    return f"{int(seconds) // MINUTE}\N{NO-BREAK SPACE}min {int(seconds) % MINUTE}\N{NO-BREAK SPACE}s"


def count(amount: int, singular: str, plural: str = "") -> str:
    """Amount and noun: "1 fault", "2,000 events"."""
    return f"{amount:,} {singular if amount == 1 else plural or singular + 's'}"


def listed(parts: list[str]) -> str:
    """Parts as a sentence lists them: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def shortened(text: str, limit: int) -> str:
    """Text of at most `limit` characters; the whole text belongs in a title beside it."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def file_name(*parts: str) -> str:
    """An .html file name made of untrusted parts. A hash keeps apart what sanitising would make equal."""
    raw = "--".join(parts)
    clean = re.sub(r"[^A-Za-z0-9_-]+", "-", raw).strip("-")[:80]
    return f"{clean}.html" if clean == raw else f"{clean}-{sha256(raw.encode()).hexdigest()[:8]}.html"


def spoken(name: str) -> str:
    """A lab's or script's name as a title: "04_kill_the_relay" -> "Kill the relay"."""
    return re.sub(r"^\d+[_-]", "", name).replace("_", " ").replace("-", " ").strip().capitalize() or name
