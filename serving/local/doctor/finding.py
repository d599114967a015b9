"""What one check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and, where it is not well, what to do.

    `level`: "fail" where nothing can be served like this, "warn" where something may be slow or wrong.
    """

    what: str
    found: str
    level: Level = "ok"
    remedy: str = ""

    @property
    def bad(self) -> bool:
        """Whether something has to be done."""
        return self.level == "fail"

    def line(self) -> str:
        """As printed."""
        return f"[{self.level}] {self.what}: {self.found}" + (f" - {self.remedy}" if self.remedy else "")

    def told(self) -> dict[str, str]:
        """As JSON says it."""
        return {key: str(value) for key, value in asdict(self).items()}


def judged(what: str, found: str, well: bool, remedy: str, level: Level = "fail") -> Finding:
    """A finding that is ok where it is `well`, else of this level with its remedy."""
    return Finding(what, found) if well else Finding(what, found, level, remedy)
