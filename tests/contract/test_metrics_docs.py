"""docs/metrics.md is the table of serving/telemetry/metrics.py."""

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from serving.telemetry import metrics, stages

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()


def documented():
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| `medserve_")]
    return {cells[0].strip(" `"): (cells[1].strip(), cells[2].strip()) for cells in rows}


def created():
    found = {}
    for metric in vars(metrics.Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            name = metric._name + ("_total" if metric._type == "counter" else "")
            found[name] = (metric._type, ", ".join(metric._labelnames))
    return found


def values(label):
    return set(re.findall(r"`(\w+)`", next(line for line in PAGE.splitlines() if line.startswith(f"| {label} |"))))


def test_the_page_has_every_metric_with_its_labels_and_no_other():
    assert documented() == created()


def test_the_page_has_every_value_of_a_label():
    assert values("route") == set(metrics.ROUTES)
    assert values("outcome of a request") == set(metrics.OUTCOMES)
    assert values("stage of a request") == set(stages.STAGES)
    assert values("reason") == set(metrics.SHED_REASONS)


def test_the_page_has_the_buckets():
    line = next(line for line in PAGE.splitlines() if line.startswith("Buckets"))
    assert tuple(float(each) for each in re.findall(r"[\d.]+\b", line.split(":")[1])) == metrics.BUCKETS_S
