"""Outputs for fixed seeds are what they were."""

import subprocess
import sys
from pathlib import Path


def test_outputs_stay():
    """In a process of its own, where the run-time checks of shapes do not double the time."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.golden.outputs", "check"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
