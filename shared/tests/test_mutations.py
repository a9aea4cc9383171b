"""`lab mutate` on a small checkout of its own: what is killed, what survives, and that nothing is left."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from shared import mutations
from shared.errors import ConfigurationError
from shared.settings import ROOT
from shared.tests.servers.lab import COMMAND, Done, one_sentence
from shared.wait import until

MODULE = """
def price(net, rate):
    return net + net * rate // 100  # whole cents

def free(net):
    return net == 0
"""
TESTS = """
import subprocess, sys, threading
from pathlib import Path
from till.prices import free, price

def test_price():
    assert price(100, 20) == 120

def test_price_as_a_child_sees_it():
    code = "from till.prices import price; print(price(100, 20))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "120\\n"

def test_free():
    free(1)

def test_that_waits():
    if price(1, 100) == 0:
        Path({begun!r}).write_text("begun")
        threading.Event().wait()
"""
LAB = """
title = "A till"
question = "What does it cost?"
section = "I.1"
package = "till"
tour = []
"""
ENTRY = """
[[mutation]]
file = {file!r}
text = {text!r}
mutant = {mutant!r}
breaks = "Customers pay the wrong price."
tests = ["tests/test_prices.py::{test}"]
"""


class Checkout:
    """A git checkout of the shared library and one small lab, and the `lab mutate` of it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.begun, self.temporary = folder / "checkout", folder / "begun", folder / "tmp"
        self.lab = self.root / "experiments" / "a-till"
        self.temporary.mkdir()
        self.lab.joinpath("tests").mkdir(parents=True)
        for name in ("shared", "docker"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        shutil.copy(ROOT / "pyproject.toml", self.root)
        files = {"lab.toml": LAB, "tests/test_prices.py": TESTS.format(begun=str(self.begun))}
        for name, text in {**files, "till/__init__.py": "", "till/prices.py": MODULE}.items():
            (self.lab / name).parent.mkdir(exist_ok=True)
            (self.lab / name).write_text(text)
        subprocess.run(["git", "init", "--quiet"], cwd=self.root, check=True)
        given = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
        self.environment = {**given, "PYTHONPATH": f"{self.root}{os.pathsep}{self.lab}", "TMPDIR": str(self.temporary)}

    def entry(self, text: str, mutant: str, test: str, file: str = "till/prices.py") -> None:
        with mutations.listing(self.lab).open("a") as listing:
            listing.write(ENTRY.format(file=file, text=text, mutant=mutant, test=test))

    def start(self, *options: str) -> "subprocess.Popen[str]":
        pipe, argv = subprocess.PIPE, [COMMAND, "mutate", *options]
        return subprocess.Popen(argv, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def mutate(self, *options: str) -> Done:
        """To its end; nothing may be left of it, neither files nor processes."""
        with self.start(*options) as process:
            out, err = process.communicate(timeout=200)
        assert self.left() == []
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def left(self) -> list[str]:
        processes = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        return [*map(str, self.temporary.iterdir()), *(line for line in processes if str(self.temporary) in line)]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_mutation_that_turns_a_test_red_is_killed_also_by_a_child_of_the_test(checkout: Checkout) -> None:
    checkout.entry("net + net", "net - net", "test_price")
    checkout.entry("net + net", "net - net", "test_price_as_a_child_sees_it")
    done = checkout.mutate("a-till", "--jobs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("2 killed, 0 survived, 0 invalid\n")
    assert (checkout.lab / "till" / "prices.py").read_text() == MODULE


def test_a_mutation_that_no_test_notices_survives_and_is_listed(checkout: Checkout) -> None:
    checkout.entry("net == 0", "net != 0", "test_free")
    done = checkout.mutate()
    assert done.returncode == 1
    assert "0 killed, 1 survived, 0 invalid" in done.stdout
    assert "survived: till/prices.py: 'net == 0' -> 'net != 0'. Customers pay the wrong price." in done.stdout


def test_a_mutation_that_cannot_be_tried_is_invalid_and_says_why(checkout: Checkout) -> None:
    checkout.entry("net + tax", "net", "test_price")
    checkout.entry("rate", "tax", "test_price")
    checkout.entry("net == 0", "net == 0", "test_free")
    checkout.entry("net == 0", "True", "test_free", file="till/gone.py")
    checkout.entry("def price(net", "def price(net, net", "test_price")
    done = checkout.mutate()
    assert done.returncode == 1
    assert "0 killed, 0 survived, 5 invalid" in done.stdout
    for reason in (
        "(its text is not in till/prices.py: 'net + tax')",
        "(its text is 2 times in till/prices.py: 'rate')",
        "(it changes nothing)",
        "(there is no till/gone.py)",
        "(pytest ended with 4: ",
    ):
        assert reason in done.stdout


def test_tests_that_are_not_green_as_they_stand_are_refused(checkout: Checkout) -> None:
    checkout.entry("net == 0", "True", "test_gone")
    assert "a-till: its tests are not green as it stands" in one_sentence(checkout.mutate())


def test_a_skipped_test_is_not_green(checkout: Checkout) -> None:
    checkout.entry("net == 0", "True", "test_free")
    tests = checkout.lab / "tests" / "test_prices.py"
    tests.write_text(tests.read_text().replace("def test_free", "@__import__('pytest').mark.skip\ndef test_free"))
    assert "1 skipped" in one_sentence(checkout.mutate())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing(checkout: Checkout, how: signal.Signals) -> None:
    checkout.entry("net + net * rate // 100  #", "0  #", "test_that_waits")
    with checkout.start() as process:
        until("a mutant to hang", checkout.begun.exists)
        process.send_signal(how)
        said = process.communicate(timeout=100)[1]
    assert process.returncode == 130
    assert said == "interrupted: what was started here is stopped\n"
    assert checkout.left() == []


def test_only_some_are_tried(checkout: Checkout) -> None:
    checkout.entry("net == 0", "net != 0", "test_free")
    checkout.entry("net + net", "net - net", "test_price")
    assert "1 killed, 0 survived, 0 invalid" in checkout.mutate("--only", "net - net").stdout
    assert "in which 'tax' occurs" in one_sentence(checkout.mutate("--only", "tax"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[mutation]\n", "cannot be used: "),
        ("[[mutation]]\nfile = 'x'\n", "missing required field `text`"),
        ("[[mutation]]\nfile=''\ntext=''\nmutant=''\nbreaks=''\ntests=[]\n", "length >= 1"),
        ("[[mutation]]\nfile='' \ntext=''\nmutant=''\nbreaks=''\ntests=['x']\nline=3\n", "unknown field `line`"),
        ("", "missing required field `mutation`"),
    ],
)
def test_a_listing_that_is_none_is_a_clear_error(tmp_path: Path, text: str, reason: str) -> None:
    mutations.listing(tmp_path).parent.mkdir()
    mutations.listing(tmp_path).write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(reason)):
        mutations.read(tmp_path)
