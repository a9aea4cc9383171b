"""Files that are whole or not there."""

from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write the text, in UTF-8, or nothing at all. Raises OSError that names the path, also when the disk is full."""
    half = path.with_name(f".{path.name}.half")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    except OSError as error:
        with suppress(OSError):  # it is the first error that counts
            half.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
