"""Servers that were started for a run stop with the last run that needs them, however the others have ended."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.servers import borrowers
from shared.tests.servers.lab import Lab

BORROW = """
from shared.servers.stack import Stack
with Stack().borrowed(["postgres"]):
    print("borrowed", flush=True)
    input()
"""


@contextmanager
def borrower(lab: Lab) -> Iterator["subprocess.Popen[str]"]:
    """Another run, which needs Postgres until it reads a line."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", BORROW]
    with subprocess.Popen(command, env=lab.env, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "borrowed\n"
        yield process
        process.kill()


def end(run: "subprocess.Popen[str]") -> None:
    run.communicate("\n", timeout=100)
    assert run.returncode == 0


def test_first_of_two_runs_to_end_leaves_the_servers_to_the_second(lab: Lab) -> None:
    with borrower(lab) as first, borrower(lab) as second:
        end(first)
        assert lab.stack().find("postgres")
        end(second)
    assert (lab.stack().find("postgres"), lab.left()) == (None, [])


@pytest.mark.fault
def test_killed_run_does_not_count_and_what_it_left_is_stopped_by_the_next_that_ends(lab: Lab) -> None:
    with borrower(lab) as first, borrower(lab) as second:
        first.kill()
        first.wait()
        assert lab.stack().find("postgres")
        end(second)
    assert (lab.stack().find("postgres"), lab.left()) == (None, [])


@pytest.mark.fault
def test_killed_run_leaves_its_servers_to_a_run_that_goes_on(lab: Lab) -> None:
    with borrower(lab) as first, borrower(lab) as second:
        first.kill()
        first.wait()
        with lab.stack().borrowed(["postgres"]):
            assert lab.stack().find("postgres")
        assert lab.stack().find("postgres")
        end(second)


def test_server_that_was_asked_for_meanwhile_stays(lab: Lab) -> None:
    with borrower(lab) as run:
        assert lab("up", "postgres").returncode == 0
        end(run)
    assert lab.stack().find("postgres")


def test_server_that_runs_already_is_not_stopped_by_a_run(lab: Lab) -> None:
    lab.stack().up(["postgres"])
    with borrower(lab) as run:
        end(run)
    assert lab.stack().find("postgres")


@pytest.mark.fault
def test_server_that_was_harmed_and_started_again_is_still_stopped_with_its_run(lab: Lab) -> None:
    with lab.stack().borrowed(["postgres"]):
        handle = lab.stack().control("postgres")
        handle.kill()
        handle.start()
    assert (lab.stack().find("postgres"), lab.left()) == (None, [])


def test_down_stops_what_a_run_needs_and_names_the_run(lab: Lab) -> None:
    with borrower(lab) as run:
        said = lab("down").stdout
        end(run)
    assert said.startswith(f"postgres: needed by -c (process {run.pid}), stopped all the same\npostgres stopped in ")
    assert lab.left() == []


def test_rubbish_of_an_interrupted_machine_is_no_borrower(lab: Lab) -> None:
    with lab.stack().borrowed(["postgres"]):
        (lab.home / "borrowers" / "1-rubbish.json").write_text("{")
        assert [borrower.servers for borrower in borrowers.living(lab.home)] == [("postgres",)]
    assert list((lab.home / "borrowers").iterdir()) == []
