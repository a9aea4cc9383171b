"""What engines share whose workers are processes of ours: loops side by side, and who listens at an address."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from urllib.parse import urlsplit

import psutil

Loop = Callable[[threading.Event], None]  # is given the event that tells it to end


def side_by_side(loops: Sequence[Loop]) -> None:
    """Run each loop in a thread until one ends; the others are then told to, and what it raised is raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(loops)) as pool:
        jobs = [pool.submit(loop, stop) for loop in loops]
        try:
            done, _ = wait(jobs, return_when=FIRST_COMPLETED)
            for job in done:
                job.result()
        finally:
            stop.set()


def listening(name: str, url: str) -> dict[str, int]:
    """{name: process id} of who listens at the address; empty where that cannot be seen, as with a container."""
    port = urlsplit(url).port
    found = (each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    pid = next((each.pid for each in found if each.laddr and each.laddr.port == port and each.pid), None)
    return {name: pid} if pid else {}
