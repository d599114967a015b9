"""The README's client code runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
README = Path(__file__).resolve().parents[2] / "README.md"
HERE = "http://127.0.0.1:8000"


def test_the_client_code_runs(server):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert HERE in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace(HERE, server.http_url)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "(512, 512)" in done.stdout


def test_the_commands_are_in_the_first_screen():
    first = README.read_text().splitlines()[:25]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)
    assert any("Not a medical device" in line for line in first)
