"""Percentiles, spreads over repeats, and the lines that are judged. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Row = tuple[str, ...]


def percentile(values: Iterable[float], q: float) -> float:
    """The q-th percentile (0..100) by linear interpolation between the closest ranks; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * q / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values: Iterable[float]) -> float:
    """The 50th percentile."""
    return percentile(values, 50)


@dataclass(frozen=True)
class Times:
    """What many latencies come to, milliseconds."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Times:
        """From seconds."""
        ms = [1000 * s for s in seconds]
        return cls(len(ms), percentile(ms, 50), percentile(ms, 95), percentile(ms, 99), max(ms, default=math.nan))


@dataclass(frozen=True)
class Spread:
    """One figure over the repeats: its median and its range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value a repeat."""
        return cls(median(values), min(values, default=math.nan), max(values, default=math.nan))

    def text(self, digits: int = 1) -> str:
        """As `12.3 (11.9 to 13.0)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Verdict:
    """One judged line: `measured` must be at most, or at least, `target`."""

    what: str
    measured: float
    target: float
    side: Literal["<=", ">="]
    unit: str = ""
    digits: int = 1
    note: str = ""

    @property
    def passed(self) -> bool:
        """NaN never passes."""
        return self.measured <= self.target if self.side == "<=" else self.measured >= self.target

    def line(self) -> str:
        """For the terminal."""
        unit = f" {self.unit}" if self.unit else ""
        word = "pass" if self.passed else "MISS"
        measured, target = (f"{value:.{self.digits}f}{unit}" for value in (self.measured, self.target))
        said = f"{word}  {self.what}: measured {measured}, target {self.side} {target}"
        return f"{said}  ({self.note})" if self.note else said


@dataclass
class Table:
    """A table of the page. `head` names the columns."""

    title: str
    head: Row
    rows: Sequence[Row] = ()

    def add(self, *cells: str) -> None:
        """One more row."""
        self.rows = [*self.rows, cells]


@dataclass
class Series:
    """A picture of the page: lines over a numeric axis, or bars over names."""

    title: str
    x_label: str
    y_label: str
    x: list[Any]
    lines: dict[str, list[float]]
    kind: Literal["line", "bar"] = "line"
    target: float | None = None
    log: bool = False


@dataclass
class Result:
    """What one scenario found."""

    name: str
    title: str
    verdicts: list[Verdict] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every judged line passes."""
        return all(verdict.passed for verdict in self.verdicts)

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def result(given: dict[str, Any]) -> Result:
    """The result that `Result.json` wrote."""
    return Result(
        name=given["name"],
        title=given["title"],
        verdicts=[Verdict(**each) for each in given["verdicts"]],
        tables=[Table(each["title"], tuple(each["head"]), [tuple(row) for row in each["rows"]]) for each in given["tables"]],
        series=[Series(**each) for each in given["series"]],
        notes=list(given["notes"]),
        raw=given["raw"],
    )
