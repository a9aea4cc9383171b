"""Loops side by side: what the workers of several engines are made of."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

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
