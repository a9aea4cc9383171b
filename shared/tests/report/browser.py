"""What the tests of the site in a real browser share."""

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RELAY = "run--outbox-pattern--04_kill_the_relay.html"
DUAL = "run--outbox-pattern--01_dual_write.html"
IN_VIEW = """(shape) => {
  const { top, bottom } = shape.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}"""
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
