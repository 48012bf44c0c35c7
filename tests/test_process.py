"""What the `__main__` of every service does before it serves."""

import subprocess
import sys

CODE = """
import gc, sys, services.frontend.server
from millrace import process
from services.frontend.settings import FrontendSettings

async def serve(settings):
    print(len(gc.get_objects()), gc.get_freeze_count())

sys.exit(process.run("frontend", "", FrontendSettings, serve))
"""


def test_the_collector_does_not_look_through_what_was_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    watched, kept = map(int, done.stdout.splitlines()[-1].split())
    assert kept > 50_000
    assert watched < kept / 5, "a full collection looks through these"
