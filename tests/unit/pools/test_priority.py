"""A replica that is ready leaves the nice value at which Ray started it, where it may."""

import subprocess
import sys

import pytest

WITH_THREADS = """
import os, threading
os.nice(15)
done = threading.Event()
threads = [threading.Thread(target=done.wait) for _ in range(3)]
[thread.start() for thread in threads]
from serving.pools import priority
said = priority.ready()
found = {os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")}
done.set()
print(said, sorted(found))
"""
NOT_ALLOWED = """
import os
from pathlib import Path
from serving.pools import priority
def refuse(*_): raise PermissionError
os.setpriority = refuse
print(priority.ready())
"""


def said_by(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def may_raise():
    """Whether this machine lets a process raise its own priority."""
    code = "import os; os.nice(5); os.setpriority(os.PRIO_PROCESS, 0, 0)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_all_threads_of_a_ready_replica_come_first():
    if not may_raise():
        pytest.skip("nobody may raise a priority here")
    assert said_by(WITH_THREADS) == "True [0]"


def test_where_it_may_not_it_stays():
    assert said_by(NOT_ALLOWED) == "False"
