"""Files from the public Java repository: named and pinned by committed locks, fetched in parallel, verified, cached.

A lock line is `coordinate sha256 bytes`. A file is in the cache under its own checksum or not at all: it is downloaded
beside its place and moved there only when the checksum agrees, so a broken download leaves nothing that looks whole.
"""

import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from shared.errors import ArtifactError, ChecksumMismatch, DownloadFailed
from shared.settings import ROOT, Settings

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 16
STALL = 30.0  # seconds without a byte before a download counts as failed
ATTEMPTS = 3
TOGETHER = 8  # downloads at once


@dataclass(frozen=True)
class Pin:
    """One line of a lock file."""

    coordinate: str  # group:artifact[:packaging[:classifier]]:version
    sha256: str
    size: int  # bytes

    @property
    def filename(self) -> str:
        from maven_artifact import Artifact

        artifact = Artifact.parse(self.coordinate)
        classifier = f"-{artifact.classifier}" if artifact.classifier else ""
        return f"{artifact.artifact_id}-{artifact.version}{classifier}.{artifact.extension}"

    def path(self, cache: Path) -> Path:
        return cache / "jars" / self.sha256[:12] / self.filename


def read_lock(name: str, folder: Path = ROOT / "docker") -> tuple[Pin, ...]:
    """The pins of `docker/<name>/jars.lock`. Raises ArtifactError on a line that is not a pin."""
    path = folder / name / "jars.lock"
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return tuple(_pin(path, line) for line in lines)


def fetch(pins: Iterable[Pin], settings: Settings, show: bool = True) -> None:
    """Bring every missing file into the cache. Raises DownloadFailed or ChecksumMismatch; keeps what did arrive."""
    missing = [pin for pin in pins if not pin.path(settings.cache).exists()]
    if not missing:
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, disable=not show) as progress, ThreadPoolExecutor(TOGETHER) as pool:
        total = sum(pin.size for pin in missing)
        bar = progress.add_task(f"fetching {len(missing)} Java files", total=total)
        over = threading.Event()

        def advance(count: int) -> None:
            progress.advance(bar, count)
            if over.is_set():
                raise CancelledError

        jobs = [pool.submit(_fetch_one, pin, settings, advance) for pin in missing]
        try:
            for job in jobs:
                job.result()
        except KeyboardInterrupt:
            over.set()  # or the wait for the pool would last as long as the downloads
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def unpack(pin: Pin, cache: Path) -> Path:
    """The folder that holds a fetched archive's content, unpacked once."""
    folder = cache / "unpacked" / pin.sha256[:12]
    if folder.exists():  # also in a cache that another user made, and where we may not lock
        return folder
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            half = folder.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            with _archive(pin.path(cache)) as archive:
                archive.extractall(half, filter="data")
            half.rename(folder)
    return folder


def _archive(path: Path) -> tarfile.TarFile:
    """The archive, or the one that a jar holds beside its manifest."""
    if path.suffix != ".jar":
        return tarfile.open(path)
    with zipfile.ZipFile(path) as jar:
        [name] = [name for name in jar.namelist() if not name.startswith("META-INF/")]
        return tarfile.open(fileobj=io.BytesIO(jar.read(name)))


def _fetch_one(pin: Pin, settings: Settings, advance: Callable[[int], None]) -> None:
    path = pin.path(settings.cache)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "set LAB_CACHE to a folder that you may write to."
        raise DownloadFailed(pin.coordinate, f"{settings.cache} cannot be used ({error.strerror}); {remedy}") from None
    # Two checkouts may fetch the same file at once: the second finds it there.
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            return
        half = path.with_name(path.name + ".half")
        try:
            _download(pin, settings, half, advance)
            _verify(pin, half)
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)


def _download(pin: Pin, settings: Settings, half: Path, advance: Callable[[int], None]) -> None:
    import requests  # here and below, since both take longer than all else, and only a first start needs them
    from maven_artifact import RequestException

    for attempt in range(1, ATTEMPTS + 1):
        got = 0
        try:
            with _open(pin, settings) as response, half.open("wb") as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    got += len(chunk)
                    advance(len(chunk))
            if got == pin.size:
                return
            problem = f"the connection ended after {got:,} of {pin.size:,} bytes"
        except (requests.RequestException, RequestException, OSError) as error:
            problem = " ".join(str(getattr(error, "msg", error)).split()) or type(error).__name__
        advance(-got)
        if attempt == ATTEMPTS:
            remedy = "Check the network (or set LAB_MAVEN to a mirror) and run the command again: what arrived is kept."
            raise DownloadFailed(pin.coordinate, f"could not be fetched: {problem}. {remedy}")


def _open(pin: Pin, settings: Settings) -> "requests.Response":
    from maven_artifact import Artifact, Requestor, Resolver

    requestor = Requestor()
    mirror = settings.values.get("MAVEN")
    resolver = Resolver(mirror, requestor) if mirror else Resolver.default()
    uri = resolver.uri_for_artifact(Artifact.parse(pin.coordinate))
    response: requests.Response = requestor.request(uri, None, stream=True, timeout=STALL)
    return response


def _verify(pin: Pin, half: Path) -> None:
    with half.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != pin.sha256:
        raise ChecksumMismatch(
            pin.coordinate,
            f"the file has sha256 {actual[:12]}…, the lock says {pin.sha256[:12]}…; it was thrown away. "
            "A mirror that changes files, or a tampered one, looks like this.",
        )


def _pin(path: Path, line: str) -> Pin:
    try:
        coordinate, sha256, size = line.split()
        return Pin(coordinate, sha256, int(size))
    except ValueError:
        raise ArtifactError(line.split()[0], f"{path} has a line that is not 'coordinate sha256 bytes'.") from None
