"""Marks, and what is said in their place where the output cannot take them. Imports little: every command needs it."""

import codecs
import io
import sys
import unicodedata

TICK, CROSS = "✔", "✘"
PLAIN = {TICK: "+", CROSS: "x", "—": "-", "–": "-", "−": "-", "…": "...", "→": "->", "×": "x", "≥": ">=", "≤": "<="}


def speak_plainly() -> None:
    """What the output's encoding does not have is said in marks that every encoding has, and not an error."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        # Whoever has chosen an error handler (PYTHONIOENCODING=ascii:replace) keeps it; Python chooses the others.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    """é is e; half a surrogate pair, and what has no likeness, is a question mark."""
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return PLAIN.get(character) or bare or "?"
