"""The running server's metrics, scraped by a real Prometheus that then answers queries."""

import shutil
import subprocess

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import wait_until

from serving.client import Client, GrpcClient
from serving.local.ports import free_ports

pytestmark = pytest.mark.integration


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 255, (64, 64), np.uint8)


def samples(server):
    """{(name, sorted labels): value} of one scrape."""
    text = httpx.get(f"{server.http_url}/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(found, name, **labels):
    return sum(value for (sample, its), value in found.items() if sample == name and labels.items() <= dict(its).items())


def test_counters_count_both_fronts_and_the_pools(server):
    before = samples(server)
    with Client(server.http_url) as http, GrpcClient(server.grpc_address) as grpc:
        for seed in range(3):
            http.segment(pixels(seed), boxes=[(8, 8, 40, 40)])
            grpc.segment(pixels(seed), boxes=[(8, 8, 40, 40)])
        handle = http.encode_image(pixels(9))
        http.segment(handle, boxes=[(8, 8, 40, 40)])
        grpc.classify([pixels(3)], ["edema", "lung nodule"], model="synthetic-cxr-clip")
    after = samples(server)

    def more(name, **labels):
        return total(after, name, **labels) - total(before, name, **labels)

    assert more("medserve_requests_total", route="segment", outcome="ok", pool="adaptive", model="litemedsam") == 7
    assert more("medserve_requests_total", route="images", outcome="ok") == 1
    assert more("medserve_requests_total", route="classify", outcome="ok", pool="contrastive") == 1
    assert more("medserve_features_cache_total", outcome="miss", pool="adaptive") == 4
    assert more("medserve_features_cache_total", outcome="hit", pool="adaptive") == 4
    assert more("medserve_affinity_total", pool="adaptive", outcome="hit") == 1
    assert more("medserve_stage_duration_seconds_count", pool="adaptive", stage="encode") == 4
    assert more("medserve_stage_duration_seconds_count", pool="adaptive", stage="decode_mask") == 7
    assert total(after, "medserve_features_cache_bytes", pool="adaptive") % (10 * 2**20) == 0
    assert {name.split("_")[0] for name, _ in after} == {"medserve"}


def test_refusals_are_counted(server):
    before = samples(server)
    httpx.post(f"{server.http_url}/v1/segment?boxes=1,1,9,9", content=b"no image")
    late = {"X-Deadline-Ms": "0.001", "content-type": "image/png"}
    assert httpx.post(f"{server.http_url}/v1/segment?boxes=1,1,9,9", content=b"\x89PNG", headers=late).status_code == 504
    after = samples(server)
    assert total(after, "medserve_requests_total", outcome="client_error") > total(
        before, "medserve_requests_total", outcome="client_error"
    )
    assert total(after, "medserve_deadline_exceeded_total") == total(before, "medserve_deadline_exceeded_total") + 1
    assert ("medserve_shed_total", (("pool", "adaptive"), ("reason", "pool_full"))) in after


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed (Debian: prometheus)")
def test_prometheus_answers_quantiles_per_pool_and_stage(server, tmp_path):
    target, port = server.http_url.removeprefix("http://"), free_ports(1)[0]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
        f"scrape_configs: [{{job_name: medserve, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    process = subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"], stderr=subprocess.DEVNULL
    )
    query = "histogram_quantile(0.95, sum by (le, pool, stage) (rate(medserve_stage_duration_seconds_bucket[30s])))"
    wanted = {("adaptive", "decode_mask"), ("adaptive", "encode"), ("contrastive", "encode"), ("contrastive", "preprocess")}
    seed = iter(range(1000, 2000))

    def answered():
        with Client(server.http_url) as client:
            client.segment(pixels(next(seed)), boxes=[(8, 8, 40, 40)])
            client.classify([pixels(next(seed))], ["edema", "lung nodule"], model="synthetic-cxr-chexzero")
        try:
            body = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=2).json()
        except httpx.HTTPError:
            return None
        rows = body.get("data", {}).get("result", [])
        found = {(row["metric"]["pool"], row["metric"]["stage"]): float(row["value"][1]) for row in rows}
        return found if all(found.get(each, 0) > 0 for each in wanted) else None

    try:
        found = wait_until(answered, 60, every_s=0.5)
    finally:
        process.terminate()
        process.wait(10)
    assert found["adaptive", "encode"] > found["contrastive", "preprocess"]
