"""Files out of packages of the npm registry, which are other people's: named and pinned by committed locks, not copied.

npm itself fetches a package when it is first used. It is in the cache under its own checksum or not at all, as the Java
files are (artifacts.py). A machine without npm, or without a network, does without what the package is needed for.
"""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from shared.errors import ArtifactError, ChecksumMismatch, NotAvailable
from shared.settings import ROOT, Settings

DEADLINE = 120.0  # seconds that npm has
QUIET = "--no-update-notifier", "--loglevel=error"
PATIENT = "--fetch-retries=2", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000", "--fetch-timeout=30000"


@dataclass(frozen=True)
class Package:
    """What a lock says: the package as name@version, the sha256 of its tarball, and which of its files, in order."""

    spec: str
    sha256: str
    files: tuple[str, ...]

    def path(self, cache: Path) -> Path:
        return cache / "npm" / self.sha256[:12] / "package.tgz"


def read_lock(name: str, folder: Path = ROOT / "docker") -> Package:
    """The package of `docker/<name>/npm.lock`. Raises ArtifactError where it does not begin with one."""
    path = folder / name / "npm.lock"
    first, *files = [line for line in path.read_text().splitlines() if line and not line.startswith("#")] or [""]
    try:
        spec, sha256 = first.split()
    except ValueError:
        raise ArtifactError(name, f"{path} does not begin with 'name@version sha256'.") from None
    return Package(spec, sha256, tuple(files))


def read(package: Package, settings: Settings) -> bytes:
    """The package's files one after the other, fetched where they are not in the cache. Raises as `fetch`."""
    with tarfile.open(fetch(package, settings)) as archive:
        opened = [archive.extractfile(f"package/{name}") for name in package.files]
        return b"\n".join(file.read() for file in opened if file)


def fetch(package: Package, settings: Settings) -> Path:
    """The package's tarball in the cache. Raises NotAvailable where npm cannot bring it, ChecksumMismatch."""
    path = package.path(settings.cache)
    if path.exists():  # also in a cache that another user made, and where we may not lock
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _fetch(package, path)
    except OSError as error:
        reason = f"{settings.cache} cannot be used ({error.strerror}); set LAB_CACHE to a folder that you may write to."
        raise NotAvailable(package.spec, reason) from None
    return path


def _fetch(package: Package, path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotAvailable(package.spec, "there is no npm on this machine to fetch it with.")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # on the same disk, so that it is moved whole
        argv = [npm, "pack", *QUIET, *PATIENT, package.spec]
        try:
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False)
        except subprocess.TimeoutExpired:
            raise NotAvailable(package.spec, f"npm did not fetch it within {DEADLINE:.0f} s.") from None
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or not found:
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise NotAvailable(package.spec, f"npm could not fetch it: {reason}")
        _verify(package, found[0])
        found[0].replace(path)


def _verify(package: Package, file: Path) -> None:
    actual = hashlib.sha256(file.read_bytes()).hexdigest()
    if actual != package.sha256:
        raise ChecksumMismatch(
            package.spec,
            f"the file has sha256 {actual[:12]}…, the lock says {package.sha256[:12]}…; it was thrown away.",
        )
