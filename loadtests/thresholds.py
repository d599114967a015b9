"""Pass or fail: what a run measured against what a file asks of it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ALL = "all"
DEFAULT = Path(__file__).with_name("thresholds.toml")
PREFIX = "LOADTEST_THRESHOLD_"
KEYS = ("p50_ms", "p95_ms", "p99_ms", "failed", "refused", "per_s", "required")
STAGES = ("stage", "features", "refused", "again")
"""Rows of locust's table that are no calls."""
REFUSED = ("429", "503")
"""Statuses with which the door turns somebody away; over gRPC they arrive as the same."""


@dataclass(frozen=True)
class Measured:
    """One kind of call over the whole run. `failed` and `refused` are shares, 0..1; refusals are failures too."""

    kind: str
    calls: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: float
    refused: float
    per_s: float


@dataclass(frozen=True)
class Verdict:
    """One threshold of one kind."""

    kind: str
    key: str
    limit: float
    measured: float

    @property
    def passed(self) -> bool:
        """A rate is a least value; everything else is a greatest."""
        return self.measured >= self.limit if self.key in ("per_s", "required") else self.measured <= self.limit

    def __str__(self) -> str:
        relation = ">=" if self.key in ("per_s", "required") else "<="
        return f"{'pass' if self.passed else 'MISS'}  {self.kind}: {self.key} {self.measured:.4g} {relation} {self.limit:.4g}"


def read(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> dict[str, dict[str, float]]:
    """kind -> key -> limit. Raises ValueError with the key that nobody knows, or the file that cannot be read."""
    chosen = path or DEFAULT
    try:
        found = tomllib.loads(chosen.read_text())
    except OSError as exc:
        raise ValueError(f"thresholds {chosen.name}: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"thresholds {chosen.name}: {exc}") from exc
    tree = {kind: {key: _number(f"{kind}.{key}", value) for key, value in keys.items()} for kind, keys in found.items()}
    for name, value in environ.items():
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX).lower()
            for keys in (tree.setdefault(ALL, {}), *tree.values()):
                keys[key] = _number(key, value)
    return tree


def _number(name: str, value: object) -> float:
    if name.rsplit(".", 1)[-1] not in KEYS:
        raise ValueError(f"threshold {name} is not known; there are: {', '.join(KEYS)}")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as exc:
        raise ValueError(f"threshold {name}: {value!r} is not a number") from exc


def judge(measured: Mapping[str, Measured], wanted: Mapping[str, Mapping[str, float]]) -> list[Verdict]:
    """A verdict a threshold, kind after kind. `all` holds for every kind that does not say the same key itself.

    A run in which nothing was called fails: it shows nothing.
    """
    if not measured:
        return [Verdict(ALL, "required", 1, 0)]
    found = []
    for kind, its in measured.items():
        keys = {**wanted.get(ALL, {}), **wanted.get(kind, {})}
        found += [
            Verdict(kind, key, limit, its.calls if key == "required" else getattr(its, key)) for key, limit in keys.items()
        ]
    for kind, keys in wanted.items():
        if keys.get("required") and kind not in measured and kind != ALL:
            found.append(Verdict(kind, "required", keys["required"], 0))
    return found


def of_locust(environment) -> dict[str, Measured]:
    """Locust's statistics by kind, both fronts together: a kind's percentiles are the worse front's."""
    refused: dict[tuple[str, str], int] = {}
    for error in environment.stats.errors.values():
        if any(status in str(error.error) for status in REFUSED):
            key = (error.method, error.name)
            refused[key] = refused.get(key, 0) + error.occurrences
    found: dict[str, Measured] = {}
    for (kind, front), row in environment.stats.entries.items():
        if front not in STAGES and row.num_requests:
            found[kind] = _worse(found.get(kind), _measured(kind, row, refused.get((front, kind), 0)))
    return found


def _measured(kind, row, refused) -> Measured:
    at = row.get_response_time_percentile
    calls = row.num_requests
    return Measured(kind, calls, at(0.5), at(0.95), at(0.99), row.num_failures / calls, refused / calls, row.total_rps)


def _worse(one: Measured | None, other: Measured) -> Measured:
    if one is None:
        return other
    calls = one.calls + other.calls

    def share(name: str) -> float:
        return (getattr(one, name) * one.calls + getattr(other, name) * other.calls) / calls

    def greater(name: str) -> float:
        return max(getattr(one, name), getattr(other, name))

    return Measured(
        one.kind,
        calls,
        greater("p50_ms"),
        greater("p95_ms"),
        greater("p99_ms"),
        share("failed"),
        share("refused"),
        one.per_s + other.per_s,
    )
