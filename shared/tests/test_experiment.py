"""An experiment as its user runs it: a script in a process of its own, judged by its exit code and its record."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from psycopg.conninfo import make_conninfo

from shared import postgres as postgres_helpers
from shared.record import RunRecord, latest
from shared.servers.server import Endpoint
from shared.wait import until

TOPIC = "I.1/event-anatomy/event-id"
SCRIPT = '''"""Does it hold?

More about it.
"""

import random, threading
from pathlib import Path
from shared import postgres
from shared.errors import LabError
from shared.experiment import Experiment, Run
from shared.history import Action, Outcome
from shared.wait import until

experiment = Experiment(title="A title", servers={servers}, topics={topics})

def wait_for_ever(path: Path) -> None:
    path.write_text("begun")
    threading.Event().wait()

@experiment.run
def main(run: Run) -> None:
{body}

if __name__ == "__main__":
    experiment.main()
'''
GOOD = f'run.claim("it holds", True, topics=["{TOPIC}"], fact="1 of 1")'
FOREVER = """
with run.step("wait"):
    run.recorder("history", "test").record(Action.SEND, Outcome.OK)
    begun = run.folder / "begun"
    worker = run.worker("child", wait_for_ever, begun)
    run.output.say(f"child {worker.process.pid}")
    until("it to begin", begun.exists)
    print("waiting", worker.process.pid, flush=True)
    worker.wait(600)
"""
Done = subprocess.CompletedProcess[str]
Runner = Callable[..., Done]


class Lab:
    """A lab folder with scripts, and a LAB_HOME for their records."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.folder = folder / "a-lab"
        self.folder.mkdir()
        given = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
        self.environment = {**given, "LAB_HOME": str(self.home)}

    def script(self, body: str, servers: tuple[str, ...] = (), topics: tuple[str, ...] = (TOPIC,)) -> Path:
        path = self.folder / "01_question.py"
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        path.write_text(SCRIPT.format(servers=servers, topics=topics, body=lines))
        return path

    def run(self, body: str, *options: str, topics: tuple[str, ...] = (TOPIC,), **servers: str) -> Done:
        """Run a script with this body; servers as name=url are the user's own."""
        environment = {**self.environment, **{f"LAB_{name.upper()}": url for name, url in servers.items()}}
        command = [sys.executable, str(self.script(body, tuple(servers), topics)), *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)

    @property
    def records(self) -> list[RunRecord]:
        return [record for _, record in latest(self.home / "runs")]

    @property
    def record(self) -> RunRecord:
        [record] = self.records
        return record


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def interrupted(lab: Lab) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    """A script that waits for its worker, and that worker."""
    command = [sys.executable, str(lab.script(FOREVER))]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=lab.environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        pid = next(line.split()[1] for line in process.stdout if line.startswith("waiting"))
        yield process, psutil.Process(int(pid))
        process.kill()


def test_claims_that_hold_exit_0_and_are_recorded_with_their_surroundings(lab: Lab) -> None:
    done = lab.run(GOOD)
    assert done.returncode == 0, done.stderr
    record = lab.record
    assert (record.lab, record.experiment, record.title) == ("a-lab", "01_question", "A title")
    assert (record.question, record.verdict, record.topics) == ("Does it hold?", "holds", (TOPIC,))
    assert record.environment.cpus >= 1
    assert "✔ it holds — 1 of 1" in done.stdout


def test_one_claim_that_fails_exits_1_and_is_recorded(lab: Lab) -> None:
    done = lab.run(f'{GOOD}\nrun.claim("it does not", 0)')
    assert done.returncode == 1
    assert [claim.holds for claim in lab.record.claims] == [True, False]
    assert "✘ it does not" in done.stdout


def test_no_claim_at_all_fails(lab: Lab) -> None:
    assert lab.run("pass", topics=()).returncode == 1
    assert lab.record.verdict == "fails"


def test_an_error_of_the_house_ends_the_run_and_is_recorded(lab: Lab) -> None:
    done = lab.run(f'{GOOD}\nraise LabError("the broker is gone")')
    assert done.returncode == 1
    assert lab.record.error == "LabError: the broker is gone"
    assert len(lab.record.claims) == 1
    assert "Traceback" not in done.stderr


def test_a_fault_run_without_its_fault_fails(lab: Lab) -> None:
    body = f'{GOOD}\nrun.recorder("h", "p").record(Action.SEND, Outcome.OK)\nrun.judge("h", fault="SIGKILL")'
    assert lab.run(body).returncode == 1
    assert lab.record.error.startswith("FaultNotFired: no fault 'SIGKILL' fired")


def test_a_judged_history_is_in_the_record_with_what_is_wrong(lab: Lab) -> None:
    body = f'{GOOD}\nrun.recorder("h", "p").record(Action.WRITE, Outcome.OK, "e1")\nrun.judge("h", variant="naive")'
    lab.run(body)
    [summary] = lab.record.histories
    assert (summary.operations, summary.counts["lost"], summary.findings[0].value) == (1, 1, "e1")


def test_what_others_have_recorded_is_judged_with_it(lab: Lab) -> None:
    lines = (
        GOOD,
        'run.recorder("theirs", "q").record(Action.WRITE, Outcome.OK, "e2")',
        'run.recorder("h", "p").record(Action.WRITE, Outcome.OK, "e1")',
        'run.judge("h", also=[run.history_file("theirs")])',
    )
    lab.run("\n".join(lines))
    [summary] = lab.record.histories
    assert (summary.operations, summary.counts["lost"]) == (2, 2)


def test_what_is_said_of_one_variant_bears_its_name_and_its_topics(lab: Lab) -> None:
    lines = (
        f'wrong = run.about("naive", wrong_way=True, topics=[{TOPIC!r}])',
        'run.recorder("h", "p").record(Action.WRITE, Outcome.OK, "e1")',
        'wrong.figure("lost", len(wrong.judge("h").committed), "events", x=1.0)',
        'wrong.claim("it loses one", True)',
        'wrong.claim("and says nothing", True, topics=[])',
    )
    assert lab.run("\n".join(lines)).returncode == 0
    record = lab.record
    assert {(one.variant, one.wrong_way) for one in record.figures} == {("naive", True)}
    assert {(one.variant, one.wrong_way) for one in record.claims} == {("naive", True)}
    assert {(one.variant, one.wrong_way) for one in record.histories} == {("naive", True)}
    assert [claim.topics for claim in record.claims] == [(TOPIC,), ()]


def test_a_figure_that_is_no_number_is_a_clear_error(lab: Lab) -> None:
    assert lab.run(f'{GOOD}\nrun.figure("rate", float("nan"), "1/s")').returncode == 1
    assert lab.record.error.startswith("ConfigurationError: the figure 'rate' cannot be recorded")


def test_a_bug_is_a_traceback_and_no_record(lab: Lab) -> None:
    done = lab.run("1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert lab.records == []


@pytest.mark.fault
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_exits_130_and_leaves_no_record_and_no_worker(
    lab: Lab, interrupted: tuple["subprocess.Popen[str]", psutil.Process], name: signal.Signals
) -> None:
    process, child = interrupted
    os.killpg(process.pid, name)  # a terminal's Ctrl-C reaches the worker too
    assert process.wait(100) == 130
    until("the worker to be gone", lambda: not child.is_running())
    assert list(lab.home.glob("runs/*/*/*")) == []
    assert process.stderr
    assert process.stderr.read() == "interrupted: servers stopped, nothing recorded\n"


def test_json_prints_the_record_and_nothing_else(lab: Lab) -> None:
    done = lab.run(f'with run.step("one"):\n    {GOOD}', "--json")
    assert RunRecord.model_validate(json.loads(done.stdout)) == lab.record
    assert done.stderr == ""


def test_a_seed_repeats_a_run(lab: Lab) -> None:
    body = f'{GOOD}\nrun.parameters["drawn"] = random.Random(run.seed).random()'
    first = record_of(lab.run(body, "--json"))
    again = record_of(lab.run(body, "--json", "--seed", str(first["seed"])))
    assert again["parameters"] == first["parameters"] != {}


def record_of(done: Done) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def test_the_scale_picks_the_value(lab: Lab) -> None:
    body = f'{GOOD}\nrun.parameters["count"] = run.pick(smoke=1, demo=2, full=3)'
    assert record_of(lab.run(body, "--json", "--scale", "smoke"))["parameters"] == {"count": 1}


@pytest.mark.parametrize("options", [("--seed", "x"), ("--scale", "huge"), ("--colour",)])
def test_an_option_that_cannot_be_used_exits_2_before_anything_runs(lab: Lab, options: tuple[str, ...]) -> None:
    assert lab.run(GOOD, *options).returncode == 2
    assert lab.records == []


SCHEMA = f"""
with postgres.connect(run.schema("_x")) as connection:
    connection.execute("create table orders (id int)")
    run.parameters["schema"] = connection.execute("select current_schema()").fetchone()[0]
{GOOD}
"""


@pytest.mark.parametrize(("options", "kept"), [((), False), (("--keep",), True)])
def test_the_schema_is_gone_after_a_run_unless_kept(
    lab: Lab, postgres: Endpoint, options: tuple[str, ...], kept: bool
) -> None:
    done = lab.run(SCHEMA, *options, postgres=postgres.url)
    assert done.returncode == 0, done.stderr
    name = str(lab.record.parameters["schema"])
    with postgres_helpers.connect(postgres.url) as connection:
        there = connection.execute("select to_regnamespace(%s) is not null", [name]).fetchone()
    assert there == (kept,)
    postgres_helpers.drop_schema(postgres, name)


def test_an_address_in_keywords_will_do_and_its_options_hold(lab: Lab, postgres: Endpoint) -> None:
    keywords = make_conninfo(postgres.url, options="-c statement_timeout=5s")
    done = lab.run(SCHEMA.replace("current_schema()", "current_setting('statement_timeout')"), postgres=keywords)
    assert done.returncode == 0, done.stderr
    assert lab.record.parameters["schema"] == "5s"


def test_a_server_of_the_users_own_is_not_harmed_and_the_step_reported(lab: Lab, postgres: Endpoint) -> None:
    body = f'if run.possible("postgres", "kill the database"):\n    run.control("postgres").kill()\n    {GOOD}'
    done = lab.run(body, postgres=postgres.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.record.verdict == "not possible here"
    assert [step.step for step in lab.record.not_possible] == ["kill the database"]
    assert "(yours)" in lab.record.environment.servers["postgres"]
    with postgres_helpers.connect(postgres.url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_harming_a_server_of_the_users_own_is_an_error(lab: Lab, postgres: Endpoint) -> None:
    lab.run(f'{GOOD}\nrun.control("postgres").kill()', postgres=postgres.url)
    assert lab.record.error.startswith("NotControllable: postgres: it is your own")


@pytest.mark.parametrize(
    ("declared", "claimed", "problem"),
    [
        ((), TOPIC, f"a claim names a topic that the experiment does not declare: {TOPIC}"),
        (
            (TOPIC, "I.1/event-anatomy/payload"),
            TOPIC,
            "a topic that no claim names: I.1/event-anatomy/payload",
        ),
        (("I.9/no/such",), "I.9/no/such", "docs/syllabus.yaml does not have the topic: I.9/no/such"),
    ],
    ids=["undeclared", "unclaimed", "unknown"],
)
def test_topics_are_those_that_claims_name_and_the_syllabus_has(
    lab: Lab, declared: tuple[str, ...], claimed: str, problem: str
) -> None:
    done = lab.run(f'run.claim("it holds", True, topics=["{claimed}"])', topics=declared)
    assert done.returncode == 1
    assert lab.record.error.startswith("ConfigurationError: ")
    assert problem in lab.record.error


def test_a_topic_whose_step_was_not_possible_need_not_be_claimed(lab: Lab, postgres: Endpoint) -> None:
    body = f'if not run.possible("postgres", "kill it"):\n    {GOOD}'
    done = lab.run(body, topics=(TOPIC, "I.1/event-anatomy/payload"), postgres=postgres.url)
    assert (done.returncode, lab.record.error) == (0, "")


@pytest.mark.parametrize(("scale", "reason"), [("smoke", "not started at scale smoke"), ("demo", "image only")])
def test_a_server_that_cannot_be_had_here_is_left_out_and_the_step_reported(lab: Lab, scale: str, reason: str) -> None:
    done = lab.run(f'{GOOD}\nassert run.optional("axon", "ask Axon") is None', "--scale", scale, "--provider", "native")
    assert (done.returncode, lab.record.verdict) == (0, "holds"), done.stdout + done.stderr
    [left] = lab.record.not_possible
    assert (left.step, reason in left.reason) == ("ask Axon", True)


def test_an_optional_server_of_the_users_own_is_used_at_any_scale(lab: Lab, postgres: Endpoint) -> None:
    lab.environment["LAB_POSTGRES"] = postgres.url
    lab.run(f'{GOOD}\nrun.parameters["url"] = run.optional("postgres", "ask it").url', "--scale", "smoke")
    assert (lab.record.parameters["url"], lab.record.not_possible) == (postgres.url, ())


def test_an_optional_server_of_the_users_own_that_does_not_answer_is_an_error(lab: Lab) -> None:
    lab.environment["LAB_MOTO"] = "http://127.0.0.1:1"
    assert lab.run(f'{GOOD}\nrun.optional("moto", "ask it")', "--scale", "smoke").returncode == 1
    assert lab.record.error.startswith("ServerError: moto: your own, which LAB_MOTO names, does not answer: ")
