"""Brings a dead Triton back on the same ports."""

from __future__ import annotations

import logging
import threading

from serving.errors import SetupError
from serving.local.triton import EmbeddedTriton

log = logging.getLogger(__name__)

POLL_S = 0.2
BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0)


class Supervisor:
    """A thread that watches one server. `restarts` counts."""

    def __init__(self, triton: EmbeddedTriton) -> None:
        self._triton = triton
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="triton-supervisor", daemon=True)
        self.restarts = 0

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; a restart under way is finished first."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        failures = 0
        while not self._stop.wait(POLL_S):
            if self._triton.alive():
                continue
            log.warning("Triton is gone: starting it again")
            if self._stop.wait(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]):
                return
            try:
                self._triton.restart()
                self.restarts += 1
                failures = 0
            except SetupError as exc:
                failures += 1
                log.error("Triton does not come back: %s", exc)
