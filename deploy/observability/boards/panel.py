"""What a dashboard is made of, and the PromQL that several of them use."""

from __future__ import annotations

from dataclasses import dataclass

RATE = "$__rate_interval"
REQUESTS = "medserve_requests_total"
LATENCY = "medserve_request_duration_seconds"
STAGE = "medserve_stage_duration_seconds"


@dataclass(frozen=True)
class Panel:
    """`queries`: (PromQL, legend). `unit`: Grafana's name of it. `kind`: "timeseries" or "stat"."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


@dataclass(frozen=True)
class Dashboard:
    """`name`: of the file, and its uid. `rows`: (title, panels)."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def per(name: str, by: str, where: str = "") -> str:
    """The rate of a counter."""
    return f"sum by ({by}) (rate({name}{where}[{RATE}]))"


def quantile(q: float, name: str, by: str, where: str = "") -> str:
    """Of a histogram."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({name}_bucket{where}[{RATE}])))"


def ratio(over: str, under: str) -> str:
    """One rate over another, and nothing where there is none to divide by."""
    return f"{over} / ({under} > 0)"
