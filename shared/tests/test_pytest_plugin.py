"""What the gate adds to pytest: skips must be explained, and a test that is run once more does not hide its failure."""

import hypothesis
import pytest

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(("reason", "complaints"), [("no Docker engine answers", 0), ("not today", 1)])
def test_skip_fails_the_run_unless_a_line_explains_it(pytester: pytest.Pytester, reason: str, complaints: int) -> None:
    pytester.makepyfile(f"import pytest\n\ndef test_it(): pytest.skip({reason!r})")
    (pytester.path / "skips").write_text("# what may be\nno Docker\n")
    run = pytester.runpytest_subprocess("--explained-skips", "skips")
    assert run.ret == complaints
    assert sum("unexplained skip" in line and reason in line for line in run.outlines) == complaints


def test_run_shows_what_a_test_failed_with_before_it_passed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "seen = []\n\n"
        "def test_passes_at_the_second_go():\n    seen.append(1)\n    assert len(seen) == 2, 'port taken'\n\n"
        "def test_never_passes():\n    assert False\n"
    )
    run = pytester.runpytest_subprocess("--reruns", "1")
    assert run.parseoutcomes() == {"passed": 1, "failed": 1, "rerun": 2}
    run.stdout.fnmatch_lines(["*failed, and was run once more: *test_passes_at*", "*AssertionError: port taken*"])


def test_property_does_not_fail_for_an_example_that_took_long() -> None:
    assert hypothesis.settings().deadline is None
