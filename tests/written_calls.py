"""For locust, beside loadtests/locustfile.py: each call as a line of the file that CALLS names.

When it ended (`time.monotonic()`, which is the machine's own: another program may lay the lines beside what it saw), its name,
milliseconds and its failure.
"""

import json
import os
import time
from pathlib import Path

from locust import events

_FILE = Path(os.environ["CALLS"]).open("a", buffering=1)  # noqa: SIM115  # as long as locust runs


@events.request.add_listener
def _write(request_type, name, response_time, exception, **_):
    if request_type != "stage":
        line = [time.monotonic(), name, response_time, None if exception is None else str(exception)]
        _FILE.write(json.dumps(line) + "\n")
