"""The peers: other ways of serving the same model, measured beside the product by `loadtests/peers/run.py` of a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from serving.bench.bench import Bench
from serving.bench.figures import Result, result
from serving.errors import SetupError
from serving.settings import CHECKOUT

SCRIPT = CHECKOUT / "loadtests" / "peers" / "run.py"


def measure(bench: Bench) -> Result:
    """Run the script and read what it wrote."""
    if not SCRIPT.exists():
        raise SetupError("the peers need a checkout of the repository: loadtests/peers is not in the package")
    out = bench.cache / "peers.json"
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--seconds", str(bench.seconds), "--repeats", str(bench.repeats)]
    done = subprocess.run([*command, "--cache", str(bench.cache), "--repository", str(bench.repository)], check=False)
    if done.returncode:
        raise SetupError("the peers' run failed: its last lines say why")
    return result(json.loads(Path(out).read_text()))
