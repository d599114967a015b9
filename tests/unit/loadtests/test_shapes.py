"""Users over time, and verdicts."""

import os
import subprocess
import sys

import pytest

from serving.settings import CHECKOUT

PROGRAM = """
import shapes
plan = shapes.Plan({shape!r}, {users}, {seconds})
print([plan.at(second) for second in {moments}])
"""


def at(shape, users, seconds, moments):
    """In a process of its own: locust patches the interpreter that imports it."""
    program = PROGRAM.format(shape=shape, users=users, seconds=seconds, moments=moments)
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT / "loadtests")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("steady", "[10, 10, 10, 10, None]"),
        ("ramp", "[2, 6, 8, 10, None]"),
        ("spike", "[2, 10, 2, 2, None]"),
        ("soak", "[8, 8, 8, 8, None]"),
        ("tide", "[2, 10, 10, 2, None]"),
    ],
)
def test_users_over_time(shape, expected):
    assert at(shape, 10, 100, [0, 50, 60, 99, 100]) == expected
