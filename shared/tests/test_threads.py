"""Threads side by side: results in order, errors raised, and Ctrl-C that waits for none of them."""

import signal
import subprocess
import sys
import threading

import pytest

from shared.threads import begin, together

STUCK = """
import threading
from shared.threads import together
print("waiting", flush=True)
together(lambda event: event.wait(60), [threading.Event()])
"""


def test_results_come_in_the_order_of_the_items_and_all_run_at_once() -> None:
    barrier = threading.Barrier(3, timeout=60)
    assert together(lambda number: (barrier.wait() >= 0, number * 2), [3, 1, 2]) == [(True, 6), (True, 2), (True, 4)]


def test_so_many_run_at_once_as_there_are_slots() -> None:
    slots, both = threading.Semaphore(1), threading.Barrier(2)
    waiting = [begin(lambda: both.wait(0.2), slots) for _ in range(2)]
    with pytest.raises(threading.BrokenBarrierError):
        waiting[0].result(60)


def test_what_one_of_them_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        together(lambda number: 1 / number, [1, 0])


def test_an_interrupted_program_ends_although_a_thread_still_waits() -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
        assert program.wait(60) != 0
