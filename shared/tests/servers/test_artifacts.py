"""The bad days of downloads, against a real HTTP server: what is in the cache is whole, or is not there."""

import hashlib
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.errors import ArtifactError, ChecksumMismatch, DownloadFailed
from shared.servers import native
from shared.servers.artifacts import ATTEMPTS, Pin, fetch, read_lock
from shared.settings import Settings
from shared.tests.servers.lab import Lab, one_sentence
from shared.wait import until

CONTENT = bytes(range(256)) * 2000  # several chunks
PIECE = 4096
PIN = Pin("org.example:thing:1.0", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


class Mirror(ThreadingHTTPServer):
    """A mirror with one file, which it may cut, send slowly or not have."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.found = True
        self.cuts = 0  # answers that end in the middle
        self.asked: list[str] = []
        self.half_sent = threading.Event()
        self.go_on = threading.Event()  # not set: the second half takes seconds
        self.go_on.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/maven"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if not self.server.found:
            return self.send_error(404)
        half = len(self.server.content) // 2
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[:half])
        self.server.half_sent.set()
        if len(self.server.asked) > self.server.cuts:
            for start in range(half, len(self.server.content), PIECE):
                self.server.go_on.wait(0.05)
                self.wfile.write(self.server.content[start : start + PIECE])
        return None

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path, mirror: Mirror) -> Settings:
    return Settings.load({"LAB_CACHE": str(tmp_path), "LAB_MAVEN": mirror.url})


def _files(settings: Settings) -> list[str]:
    """What is in the cache, locks aside."""
    return [path.name for path in settings.cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_file_arrives_under_its_checksum_and_is_asked_for_once(settings: Settings, mirror: Mirror) -> None:
    fetch([PIN], settings, show=False)
    fetch([PIN], settings, show=False)
    assert PIN.path(settings.cache).read_bytes() == CONTENT
    assert mirror.asked == ["/maven/org/example/thing/1.0/thing-1.0.jar"]


def test_connection_cut_in_the_middle_is_tried_again(settings: Settings, mirror: Mirror) -> None:
    mirror.cuts = ATTEMPTS - 1
    fetch([PIN], settings, show=False)
    assert PIN.path(settings.cache).read_bytes() == CONTENT
    assert len(mirror.asked) == ATTEMPTS


def test_connection_that_is_always_cut_leaves_no_file_and_names_the_remedy(settings: Settings, mirror: Mirror) -> None:
    mirror.cuts = ATTEMPTS
    with pytest.raises(DownloadFailed, match=r"org.example:thing:1.0: could not be fetched: .*LAB_MAVEN") as failure:
        fetch([PIN], settings, show=False)
    assert "\n" not in str(failure.value)
    assert _files(settings) == []


def test_corrupt_file_of_the_right_size_is_thrown_away(settings: Settings, mirror: Mirror) -> None:
    mirror.content = CONTENT[:-1] + b"?"
    with pytest.raises(ChecksumMismatch, match=f"the lock says {PIN.sha256[:12]}…; it was thrown away"):
        fetch([PIN], settings, show=False)
    assert _files(settings) == []


def test_other_file_of_another_size_is_refused(settings: Settings, mirror: Mirror) -> None:
    mirror.content = CONTENT + b"more"
    with pytest.raises(DownloadFailed, match=r"512,004 of 512,000 bytes"):
        fetch([PIN], settings, show=False)
    assert _files(settings) == []


def test_missing_file_is_named_with_the_mirror_that_lacks_it(settings: Settings, mirror: Mirror) -> None:
    mirror.found = False
    with pytest.raises(DownloadFailed, match=f"404.*{mirror.url}.*LAB_MAVEN"):
        fetch([PIN], settings, show=False)
    assert _files(settings) == []


def test_failure_keeps_what_did_arrive(settings: Settings, mirror: Mirror) -> None:
    with pytest.raises(ChecksumMismatch, match="other"):
        fetch([PIN, Pin("org.example:other:1.0", "0" * 64, PIN.size)], settings, show=False)
    assert _files(settings) == ["thing-1.0.jar"]


def test_two_fetchers_at_once_fetch_once(settings: Settings, mirror: Mirror) -> None:
    mirror.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(fetch, [PIN], settings, False) for _ in range(2)]
        assert mirror.half_sent.wait(10)
        mirror.go_on.set()
        assert [job.result() for job in jobs] == [None, None]
    assert len(mirror.asked) == 1


def test_interrupted_download_ends_soon_and_leaves_no_file(settings: Settings, mirror: Mirror) -> None:
    mirror.go_on.clear()

    main = threading.get_ident()

    def interrupt() -> None:
        mirror.half_sent.wait(10)
        signal.pthread_kill(main, signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        fetch([PIN], settings, show=False)
    other.join()
    assert _files(settings) == []


@pytest.mark.fault
def test_download_killed_in_the_middle_leaves_nothing_that_looks_whole(lab: Lab, mirror: Mirror) -> None:
    mirror.go_on.clear()
    cache = lab.home / "cache"
    with lab.running("up", "kafka", MAVEN=mirror.url, CACHE=str(cache)) as up:
        half = until("half a download", lambda: [p for p in cache.rglob("*.half") if p.stat().st_size])
        up.kill()
        up.wait()
    assert half
    assert [path for path in cache.rglob("*.jar") if path.is_file()] == []


def test_no_network_and_a_cold_cache_is_one_sentence_with_the_remedy(lab: Lab) -> None:
    closed = native.free_ports({"closed": 0})["closed"]
    done = lab("up", "kafka", MAVEN=f"http://127.0.0.1:{closed}", CACHE=str(lab.home / "cold"))
    sentence = one_sentence(done)
    assert "Connection refused" in sentence
    assert sentence.endswith(
        "Check the network (or set LAB_MAVEN to a mirror) and run the command again: what arrived is kept."
    )


def test_no_network_and_a_warm_cache_asks_nobody(settings: Settings, mirror: Mirror) -> None:
    fetch([PIN], settings, show=False)
    mirror.asked.clear()
    gone = Settings.load({"LAB_CACHE": str(settings.cache), "LAB_MAVEN": "http://127.0.0.1:9"})
    fetch([PIN], gone, show=False)
    assert mirror.asked == []


def test_cache_that_cannot_be_written_is_one_sentence_with_the_remedy(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blocked = Settings.load({**_given(settings), "LAB_CACHE": str(tmp_path / "file")})
    with pytest.raises(DownloadFailed, match=r"cannot be used .*set LAB_CACHE"):
        fetch([PIN], blocked, show=False)


def test_line_that_is_not_a_pin_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "jars.lock").write_text("# comment\norg.example:thing:1.0 only-two\n")
    with pytest.raises(ArtifactError, match=r"org.example:thing:1.0: .*jars.lock has a line"):
        read_lock("kafka", tmp_path)


def _given(settings: Settings) -> dict[str, str]:
    return {f"LAB_{name}": value for name, value in settings.values.items()}
