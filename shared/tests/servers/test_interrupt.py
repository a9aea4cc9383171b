"""Ctrl-C, SIGTERM, kill -9 and impatience while `lab up` starts servers."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from shared.tests.servers.lab import Lab, gone
from shared.wait import until


@pytest.mark.fault
@pytest.mark.parametrize(
    ("send", "number"),
    [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)],
    ids=["Ctrl-C to the group", "SIGTERM"],
)
def test_signal_during_a_start_stops_what_was_started(lab: Lab, send: Callable[[int, int], None], number: int) -> None:
    with lab.running("up", "kafka") as up:
        lab.freeze("kafka")
        send(up.pid, number)
        up.communicate(timeout=60)
    assert up.returncode == 130
    assert (lab.left(), lab.record("kafka")) == ([], None)


@pytest.mark.fault
def test_second_ctrl_c_does_not_break_off_the_clean_up_of_the_first(lab: Lab) -> None:
    with lab.running("up", "postgres", "kafka") as up:
        kafka = lab.freeze("kafka")
        until("postgres answers", lambda: (record := lab.record("postgres")) and record.ready)
        os.kill(up.pid, signal.SIGINT)
        until("the clean-up has begun", lambda: gone(kafka) or kafka.status() != psutil.STATUS_STOPPED)
        os.kill(up.pid, signal.SIGINT)
        up.communicate(timeout=60)
    assert up.returncode == 130
    assert (lab.left(), lab.record("postgres")) == ([], None)


def test_ctrl_c_ends_with_one_sentence(lab: Lab) -> None:
    lab.folder("kafka").mkdir(parents=True)
    (lab.folder("kafka") / "node-1.log").write_text("last words\n")
    with lab.running("logs", "kafka", "--follow") as logs:
        assert logs.stdout
        logs.stdout.readline()
        os.kill(logs.pid, signal.SIGINT)
        _, errors = logs.communicate(timeout=60)
    assert logs.returncode == 130
    assert errors == "interrupted: what was started here is stopped\n"


@pytest.mark.fault
@pytest.mark.parametrize("command", ["up", "down"])
def test_next_command_cleans_up_after_a_killed_one(lab: Lab, command: str) -> None:
    with lab.running("up", "kafka") as up:
        frozen = lab.freeze("kafka")
        up.kill()
        up.wait()
    assert lab.left() != []
    assert lab(command, "kafka").returncode == 0
    assert gone(frozen)


@pytest.mark.fault
def test_two_at_once_start_one_server_and_the_second_says_that_it_waits(lab: Lab) -> None:
    with lab.running("up", "kafka") as first:
        kafka = lab.freeze("kafka")
        with lab.running("up", "kafka") as second:
            assert second.stdout
            assert second.stdout.readline() == "another lab command starts or stops servers; waiting for it\n"
            kafka.send_signal(signal.SIGCONT)
            assert (first.wait(200), second.wait(200)) == (0, 0)
            assert "starting" not in second.stdout.read()
    assert lab.process("kafka").pid == kafka.pid
    assert len(lab.left()) == 1
