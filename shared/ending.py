"""How a command ends: by itself, with one sentence on stderr and exit 1, or by a signal, cleaned up, and 130."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared import output, signals
from shared.errors import LabError
from shared.settings import Settings

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What the place is to blame for, and no bug of ours: with a path, or of a disk.
PLACE = FULL | {errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
NAMED = {*PLACE, errno.ENAMETOOLONG, errno.ELOOP}
ROOM = 32_000_000  # bytes: Postgres gives up when there is less than a segment of its log, which is half of that


@contextmanager
def command(interrupted: str) -> Iterator[None]:
    """A command, from its first word to its exit code. `interrupted` is what it says when a signal has ended it."""
    signals.heed()
    output.speak_plainly()
    try:
        with _said():
            yield
    except KeyboardInterrupt:
        _end(interrupted, 130)
    except SystemExit as end:
        if end.code == 130:  # typer has turned Ctrl-C into this
            _end(interrupted, 130)
        raise
    except LabError as error:
        _end(f"error: {error}", 1)
    except BrokenPipeError:  # `lab list | head`: who reads has enough
        _end("", 1)
    except Exception as error:
        sentence = of_the_place(error)
        if sentence is None:
            raise
        _end(f"error: {sentence}", 1)


def of_the_place(error: Exception) -> str | None:
    """The sentence for an error that a disk, a folder or the output is to blame for; None when it is not."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return "; ".join(str(problem) for *_, problem in error.args[0][:1])
    if isinstance(error, OSError):
        if error.filename is not None and error.errno in NAMED:
            return f"{error.filename}: {error.strerror}{_remedy(Path(os.fsdecode(error.filename)), error.errno)}"
        if error.errno not in FULL | {errno.EROFS, errno.EIO}:
            return None
        where = _full() or Path(tempfile.gettempdir())
        return f"{where}: {error.strerror}{_remedy(where, error.errno)}"
    # A server or a client of one may say it in its own words, or not at all.
    if (place := _full()) is None:
        return None
    words = " ".join(str(error).split())
    return f"the disk of {place} is full ({type(error).__name__}: {words}){_remedy(place, errno.ENOSPC)}"


@contextmanager
def _said() -> Iterator[None]:
    """What is printed in the block has been written at its end. Raises OSError that names the output."""
    try:
        yield
    finally:
        try:
            print(end="", flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, "the output") from None


def _end(sentence: str, code: int) -> None:
    with suppress(OSError):  # stderr may be gone too
        if sentence:
            print(sentence, file=sys.stderr, flush=True)
    try:
        print(end="", flush=True)
    except OSError:  # Python would try once more at its exit, and say so
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    raise SystemExit(code) from None


def _full() -> Path | None:
    """The first of the places that we write to whose disk has no room."""
    with suppress(OSError, LabError):
        settings = Settings.load()
        for place in (settings.home, settings.cache, Path(tempfile.gettempdir())):
            there = next(folder for folder in (place, *place.parents) if folder.exists())
            if shutil.disk_usage(there).free < ROOM:
                return place
    return None


def _remedy(path: Path, number: int | None) -> str:
    """Which variable chooses another place."""
    what = "make room there, or " if number in FULL else ""
    with suppress(OSError, LabError):
        settings = Settings.load()
        for variable, place in (("LAB_HOME", settings.home), ("LAB_CACHE", settings.cache)):
            if path.is_relative_to(place) or place.is_relative_to(path):
                return f"; {what}set {variable} to a folder that you may write to."
    return "; make room there." if what else "."
