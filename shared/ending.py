"""How a command ends: by itself, with one sentence on stderr and exit 1, or by a signal, cleaned up, and 130."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared import plain, signals
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
    plain.speak_plainly()
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
        _end(f"error: {error}{short_of_room()}", 1)
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
        if error.filename is not None:
            path = Path(os.fsdecode(error.filename2 or error.filename))  # of a copy, where to
            known = error.errno in NAMED or (error.errno == errno.ENOENT and _cannot_be_made(path))
            return f"{path}: {error.strerror}{_remedy(path, error.errno)}" if known else None
        # Of a file that is open; or tempfile's own, which has found no folder that it may write to.
        known = error.errno in FULL | {errno.EROFS, errno.EIO} or "temporary directory" in str(error.strerror)
        return f"{error.strerror}.{short_of_room()}" if known else None
    # A server or a client of one may say it in its own words, or not at all.
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}{short}" if (short := short_of_room()) else None


def short_of_room() -> str:
    """A sentence, after a space, about the first of the places that we write to whose disk is all but full; or none."""
    with suppress(OSError, LabError):
        settings = Settings.load()
        for place in (settings.home, settings.cache, Path(tempfile.gettempdir())):
            there = next(folder for folder in (place, *place.parents) if folder.exists())
            disk = shutil.disk_usage(there)
            if disk.total > 0 and disk.free < ROOM:  # what is no disk, such as /proc, has none
                return f" Only {disk.free / 1e6:.1f} MB are free under {place}{_remedy(place, errno.ENOSPC)}"
    return ""


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


def _cannot_be_made(path: Path) -> bool:
    """Whether it is a place of ours that does not exist: such as below /proc, where nobody can make one."""
    with suppress(OSError, LabError):
        settings = Settings.load()
        places = (place for place in (settings.home, settings.cache) if not place.exists())
        return any(path.is_relative_to(place) or place.is_relative_to(path) for place in places)
    return False


def _remedy(path: Path, number: int | None) -> str:
    """Which variable chooses another place."""
    where = "on another disk" if number in FULL else "that you may write to"
    with suppress(OSError, LabError):
        settings = Settings.load()
        for variable, place in (("LAB_HOME", settings.home), ("LAB_CACHE", settings.cache)):
            if path.is_relative_to(place) or place.is_relative_to(path):
                return f"; set {variable} to a folder {where}."
    return "."
