import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.telemetry.metrics import BUCKETS_S, SHED_REASONS, Metrics
from serving.telemetry.stages import Stages

WRITER = """
from serving.telemetry.metrics import Metrics
m = Metrics(); m.prepare_pool("adaptive", ["m"])
m.observe_stages("adaptive", "m", {"encode": 0.25}); m.features_bytes.labels("adaptive").set(100)
"""
SCRAPER = "from serving.telemetry.metrics import Metrics; print(Metrics().scrape().decode())"


def run(code: str, folder: Path) -> str:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout


def test_a_scrape_adds_up_every_process_and_forgets_the_gauges_of_the_dead(tmp_path: Path):
    run(WRITER, tmp_path)
    run(WRITER, tmp_path)
    text = run(SCRAPER, tmp_path)
    assert 'medserve_stage_duration_seconds_count{model="m",pool="adaptive",stage="encode"} 2.0' in text
    assert 'medserve_stage_duration_seconds_sum{model="m",pool="adaptive",stage="encode"} 0.5' in text
    assert "medserve_features_cache_bytes{" not in text


def test_buckets_are_those_of_the_interface():
    assert BUCKETS_S[0] == 0.001
    assert BUCKETS_S[-1] == 60
    assert list(BUCKETS_S) == sorted(BUCKETS_S)
    assert len(BUCKETS_S) == 21


def test_silent_series_exist_at_zero():
    metrics = Metrics()
    metrics.prepare_edge(["adaptive"])
    text = metrics.scrape().decode()
    assert all(f'medserve_shed_total{{pool="adaptive",reason="{reason}"}} 0.0' in text for reason in SHED_REASONS)
    assert 'medserve_expected_wait_seconds_count{pool="adaptive",priority="bulk"} 0.0' in text
    assert 'medserve_deadline_exceeded_total{stage="router"} 0.0' in text


def test_stages_add_up_and_unknown_stages_are_refused():
    stages = Stages()
    stages.add("encode", 1.0)
    with stages.measure("encode"):
        pass
    assert stages.seconds["encode"] >= 1.0
    with pytest.raises(ValueError, match="unknown stage"), stages.measure("lunch"):
        pass
