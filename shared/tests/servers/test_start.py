"""The bad days of a start: each ends with one sentence that names the log or the remedy, and leaves nothing behind."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from socket import socket

import psutil
import psycopg
import pytest

from shared.errors import LabError, NotReady, PortTaken, StartFailed
from shared.servers import instance, native
from shared.servers.catalogue import find
from shared.servers.catalogue.kafka import Kafka
from shared.servers.handle import own_instance, sweep
from shared.servers.instance import InstanceRecord, ProcessRecord
from shared.servers.process import ProcessId
from shared.servers.server import Place
from shared.tests.servers.lab import Lab, one_sentence
from shared.wait import until


@pytest.fixture
def stranger(lab: Lab) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is not ours."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def listening(lab: Lab) -> Iterator[int]:
    """A port on which this test listens."""
    with closing(socket()) as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def _claim(lab: Lab, process: ProcessRecord) -> InstanceRecord:
    """What an earlier `lab up kafka` wrote about a process of its own."""
    ports = {"client": 1, "controller": 2}
    record = InstanceRecord(
        server="kafka", provider="native", url="127.0.0.1:1", ports=ports, ready=True, processes=(process,)
    )
    return record.write(lab.folder("kafka"))


def test_taken_port_names_its_holder_and_the_variable_for_another(lab: Lab, listening: int) -> None:
    sentence = one_sentence(lab("up", "postgres", POSTGRES_PORT=str(listening)))
    holder = f"{psutil.Process().name()} (pid {psutil.Process().pid})"
    assert sentence.startswith(f"postgres: port {listening} is taken by {holder}; stop it")
    assert sentence.endswith("choose another port with LAB_POSTGRES_PORT.")


def test_taken_port_of_another_role_names_that_roles_variable(lab: Lab, listening: int) -> None:
    with pytest.raises(PortTaken, match="LAB_TEMPORAL_UI_PORT"):
        lab.stack(TEMPORAL_UI_PORT=str(listening)).up(["temporal"])


def test_one_taken_port_stops_what_was_started_besides(lab: Lab, listening: int) -> None:
    with pytest.raises(PortTaken, match="LAB_KAFKA_PORT"):
        lab.stack(KAFKA_PORT=str(listening)).up(["postgres", "kafka"])
    assert lab.left() == []
    assert lab.record("postgres") is None


def test_pid_that_belongs_to_another_process_now_is_never_killed(lab: Lab, stranger: "subprocess.Popen[bytes]") -> None:
    boot, _, ticks = ProcessId.of(stranger.pid).started.partition("/")
    long_ago = f"{boot}/{int(ticks or 1) - 1}"
    _claim(lab, ProcessRecord(pid=stranger.pid, started=long_ago, log=lab.folder("kafka") / "node-1.log"))
    assert lab.stack().find("kafka") is None
    assert lab.stack().down() == []
    assert stranger.poll() is None


def test_stale_record_does_not_hinder_a_start(lab: Lab, stranger: "subprocess.Popen[bytes]") -> None:
    _claim(lab, ProcessRecord(pid=stranger.pid, started="another boot/1", log=lab.folder("kafka") / "node-1.log"))
    assert lab.stack().up(["kafka"])["kafka"].provider == "native"
    assert stranger.poll() is None


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"server": "postgres"}', "\0\0\0"])
def test_garbage_record_counts_as_none(lab: Lab, garbage: str) -> None:
    lab.folder("postgres").mkdir(parents=True)
    (lab.folder("postgres") / "instance.json").write_text(garbage)
    assert {status.state for status in lab.stack().status()} == {"stopped"}
    assert lab.stack().down() == []


def test_garbage_record_does_not_hinder_a_start(lab: Lab) -> None:
    lab.folder("postgres").mkdir(parents=True)
    (lab.folder("postgres") / "instance.json").write_bytes(b"\xff{")
    endpoint = lab.stack().up(["postgres"])["postgres"]
    assert find("postgres").probe(endpoint) == find("postgres").version
    assert json.loads((lab.folder("postgres") / "instance.json").read_text())["ready"]


@pytest.mark.fault
def test_server_killed_while_it_starts_is_a_failed_start_that_names_its_log(lab: Lab) -> None:
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(lab.stack().up, ["kafka"])
        lab.process("kafka").kill()
        with pytest.raises(StartFailed, match=f"kafka: it ended before it answered.*{lab.home}.*node-1.log") as failure:
            job.result()
    assert failure.value.log
    assert failure.value.log.exists()
    assert lab.left() == []


def test_settings_given_as_keywords_are_spelled_as_the_server_spells_them() -> None:
    assert find("kafka").spelled({"lab_jit": "full"}) == {"lab.jit": "full"}
    assert find("postgres").spelled({"max_prepared_transactions": "9"}) == {"max_prepared_transactions": "9"}


def test_bad_setting_is_told_with_the_logs_last_words(lab: Lab) -> None:
    with (
        pytest.raises(StartFailed, match="contains errors") as failure,
        own_instance("postgres", lab.settings(), overrides={"nonsense": "1"}),
    ):
        pass
    assert "\n" not in str(failure.value)
    assert lab.left() == []


def test_log_that_a_failed_own_instance_names_is_there_to_be_read(lab: Lab) -> None:
    with (
        pytest.raises(StartFailed) as failure,
        own_instance("kafka", lab.settings(), overrides={"process.roles": "cook"}),
    ):
        pass
    assert failure.value.log
    assert "cook" in failure.value.log.read_text()
    assert [path.name for path in failure.value.log.parent.iterdir()] == ["node-1.log"]
    lab.stack().down()
    assert list((lab.home / "own").iterdir()) == []


def test_server_that_does_not_answer_in_time_is_not_ready_and_stopped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kafka, "deadline", 1.0)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(lab.stack().up, ["kafka"])
        lab.freeze("kafka")
        with pytest.raises(NotReady, match=r"did not answer within 1 s .*node-1\.log") as failure:
            job.result()
    assert "\n" not in str(failure.value)
    assert lab.left() == []


def test_free_port_is_one_that_no_client_is_given_while_its_server_is_down() -> None:
    ports = native.free_ports({str(role): 0 for role in range(100)})
    assert len(set(ports.values())) == 100
    assert (
        max(ports.values()) < 32_768
    )  # the first that Linux gives to clients, if nobody has set another; macOS 49,152


def test_taken_ports_are_passed_over_until_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = native.free_ports({"taken": 0, "free": 0}).values()
    monkeypatch.setattr(native, "FREE", (taken, free))
    with closing(socket()) as held:
        held.bind(("127.0.0.1", taken))
        assert native.free_ports({"only": 0}) == {"only": free}
        with pytest.raises(LabError, match="no port is free"):
            native.free_ports({"one": 0, "two": 0})


def test_cancelled_start_leaves_nothing(lab: Lab) -> None:
    server, cancel = find("kafka"), threading.Event()
    place = Place(lab.folder("kafka"), lab.settings().cache, native.free_ports(server.ports))
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(native.start, server, place, cancel)
        lab.freeze("kafka")
        cancel.set()
        with pytest.raises(StartFailed, match="cancelled"):
            job.result()
    assert (lab.left(), lab.record("kafka")) == ([], None)


@pytest.mark.fault
def test_half_made_data_directory_is_made_anew(lab: Lab) -> None:
    with lab.running("up", "postgres") as up:
        until("initdb is at work", lambda: list(lab.folder("postgres").glob("data.*.half/PG_VERSION")))
        up.kill()
        up.wait()
    assert not (lab.folder("postgres") / "data").exists()
    with psycopg.connect(lab.stack().up(["postgres"])["postgres"].url) as connection:
        assert connection.execute("show wal_level").fetchone() == ("logical",)


def test_sweep_spares_an_own_instance_that_is_being_prepared(lab: Lab) -> None:
    settings = lab.settings()

    def start() -> str:
        with own_instance("postgres", settings) as handle:
            return find("postgres").probe(handle.endpoint)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(start)
        until("its folder is there", lambda: list((lab.home / "own").glob("*/initdb.log")))
        assert sweep(settings) == []
        assert job.result() == find("postgres").version


def test_own_instance_leaves_nothing_behind(lab: Lab) -> None:
    with own_instance("postgres", lab.settings()) as handle:
        folder = handle.place.folder
        assert instance.read(folder) == handle.record
    assert lab.left() == []
    assert not folder.exists()


@pytest.mark.fault
def test_own_instance_of_a_dead_owner_is_swept_by_the_next_command(lab: Lab) -> None:
    script = (
        "from shared.servers.handle import own_instance; from shared.settings import Settings\n"
        "with own_instance('postgres', Settings.load()): print('up', flush=True); input()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], env=lab.env, stdin=pipe, stdout=pipe) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"up\n"
        owner.kill()
    (folder,) = (lab.home / "own").iterdir()
    assert lab.left() != []
    assert lab("down").returncode == 0
    assert (lab.left(), folder.exists()) == ([], False)


def test_command_uses_the_start_up_cache_where_there_is_one(lab: Lab, tmp_path: Path) -> None:
    server = find("kafka")
    place = Place(tmp_path / "kafka", tmp_path / "cache", server.ports)
    first = server.commands(place)[0]
    assert first.finished
    first.finished.touch()
    assert f"-XX:AOTCache={first.finished}" in server.commands(place)[0].argv
    assert re.search(r"AOTMode=record", " ".join(first.argv))
