"""For locust, beside loadtests/locustfile.py: each call as a line of the file that CALLS names.

When it ended (`time.monotonic()`, which is the machine's own: another program may lay the lines beside what it saw), how many
users there were then, its type and name, milliseconds and its failure.
"""

import json
import os
import time
from pathlib import Path

from locust import events

_FILE = Path(os.environ["CALLS"]).open("a", buffering=1)  # noqa: SIM115  # as long as locust runs


@events.init.add_listener
def _begin(environment, **_):
    @events.request.add_listener
    def _write(request_type, name, response_time, exception, **_):
        if request_type != "stage":
            failure = None if exception is None else str(exception)
            line = [time.monotonic(), environment.runner.user_count, request_type, name, response_time, failure]
            _FILE.write(json.dumps(line) + "\n")
