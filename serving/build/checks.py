"""What `medserve models verify` finds, and what it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.engines.engine import EngineSpec
from serving.manifest import EngineRecord, Manifest


@dataclass(frozen=True)
class Check:
    """One finding. `state` "none": it could not be made, and `detail` says why."""

    state: Literal["ok", "fail", "none"]
    what: str
    detail: str

    def line(self) -> str:
        """For the terminal."""
        return f"{self.state:<5} {self.what}: {self.detail}"


@dataclass(frozen=True)
class Target:
    """One built model: its record, the specs of its parts, the repository."""

    manifest: Manifest
    specs: dict[str, EngineSpec]
    repository: Path

    def engines(self) -> Iterator[tuple[str, EngineSpec, EngineRecord, Path]]:
        """(part, spec, record, version folder) of every engine."""
        for part, records in self.manifest.engines.items():
            for record in records:
                yield part, self.specs[part], record, self.repository / record.name / record.version
