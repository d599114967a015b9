"""Sections that fail alone, and their results in one JSON file that is whole after each of them."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Report:
    """Results under `path`. No section begins after `budget_s` seconds."""

    def __init__(self, path: Path, budget_s: float) -> None:
        self._path = path
        self._until = time.monotonic() + budget_s
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def left_s(self) -> float:
        """Seconds of the budget."""
        return self._until - time.monotonic()

    def section(self, name: str, run: Callable[[], Any], least_s: float = 5.0) -> Any:
        """Run one section, keep and print what it gives or how it failed. `least_s`: not begun with less time left."""
        if self.left_s() < least_s:
            self._keep(name, {"skipped": f"{self.left_s():.0f} s were left"})
            return None
        start = time.monotonic()
        try:
            given = run()
        except Exception as exc:  # whatever one section meets, the others are measured
            traceback.print_exc()
            self._keep(name, {"failed": f"{type(exc).__name__}: {exc}"[:2000], "took_s": _since(start)})
            return None
        self._keep(name, {"result": given, "took_s": _since(start)})
        return given

    def _keep(self, name: str, value: dict[str, Any]) -> None:
        self.found[name] = value
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.found, indent=1))
        print(f"{name}: {json.dumps(value)}", flush=True)


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)
