import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc
import pytest

from serving.local import doctor
from serving.local.doctor import engines, gpu, machine, reach
from serving.local.doctor.finding import Finding, judged
from serving.manifest import EngineRecord, Manifest
from serving.settings import FeaturesSettings, RepositorySettings, Settings, TritonSettings
from tests.unit.client.answering import answering
from tests.unit.edge.servers import serve


def by_name(findings):
    return {finding.what: finding for finding in findings}


@pytest.fixture
def settings(tmp_path):
    """A repository with one built model, of an engine for CPUs."""
    folder = tmp_path / "sam_part" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    record = {"part": (EngineRecord(name="sam_part", digest="e" * 64),)}
    given = {"model": "sam", "family": "litemedsam", "pool": "adaptive", "digest": "d" * 64, "source": "here"}
    Manifest(**given, licence="Apache-2.0", engines=record, built_at="2026-01-01T00:00:00Z").write(tmp_path)
    return Settings(
        home=tmp_path, repository=RepositorySettings(path=tmp_path), features=FeaturesSettings(budget_bytes=1 << 20)
    )


def change(settings, **changed):
    path = settings.repository.path / "sam.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def model(settings):
    (found,) = engines.engines(settings)
    return found


def test_a_finding_says_what_to_do_where_it_is_not_well():
    assert judged("disk", "9 MiB", True, "free some").line() == "[ok] disk: 9 MiB"
    assert judged("disk", "9 MiB", False, "free some").line() == "[fail] disk: 9 MiB - free some"
    assert not judged("disk", "9 MiB", False, "free some", "warn").bad
    assert Finding("a", "b").told() == {"what": "a", "found": "b", "level": "ok", "remedy": ""}


def test_every_check_of_a_machine_finds_something_and_what_is_bad_has_a_remedy(settings):
    found = doctor.examine(settings)
    assert {"Python", "ray", "Triton", "/dev/shm", "memory", "clock", "GPU", "model sam"} <= set(by_name(found))
    assert all(bool(finding.remedy) == (finding.level != "ok") for finding in found)


def test_an_arena_that_does_not_fit_is_bad(settings):
    asked = settings.model_copy(update={"features": FeaturesSettings(budget_bytes=1 << 50)})
    (found,) = machine.shared_memory(asked)
    assert found.bad
    assert "--shm-size" in found.remedy


def test_packages_are_compared_with_what_is_pinned(settings, tmp_path):
    pins = tmp_path / "constraints.txt"
    pins.write_text("numpy==1.0.0\n")
    found = by_name(machine.packages(settings, ("numpy", "no-such-package"), pins))
    assert found["numpy"].level == "warn"
    assert "1.0.0" in found["numpy"].remedy
    assert found["no-such-package"].bad


def test_a_missing_engine_and_an_empty_repository_are_bad(settings, tmp_path):
    assert model(settings).level == "ok"
    shutil.rmtree(tmp_path / "sam_part")
    assert model(settings).bad
    assert "models build sam" in model(settings).remedy
    (tmp_path / "sam.json").unlink()
    assert model(settings).bad


def test_other_libraries_and_a_build_in_the_future_are_warned_of(settings):
    change(settings, versions={"openvino": "2020.1"})
    assert "built with openvino 2020.1" in model(settings).found
    change(settings, versions={}, built_at="2999-01-01T00:00:00Z")
    assert "clock" in model(settings).remedy


def test_a_plan_needs_the_tensorrt_that_built_it(settings, tmp_path, monkeypatch):
    (tmp_path / "sam_part" / "1" / "model.plan").write_bytes(b"plan")
    change(settings, versions={"builder": "tensorrt-10.1"})
    monkeypatch.setattr(engines, "tensorrt_version", lambda: "10.3.0")
    assert model(settings).bad
    monkeypatch.setattr(engines, "tensorrt_version", lambda: "10.1.0.27")
    assert model(settings).level == "ok"


@pytest.mark.parametrize(
    ("versions", "here", "well"),
    [
        ({"tensorrt": "10.1.0"}, "10.1.0.27", True),
        ({"tensorrt": "tensorrt-10.1"}, "10.1.5", True),
        ({"builder": "tensorrt-10.1"}, "10.2.0", False),
        ({"tensorrt": "10.1.0"}, "10.1.1", False),
        ({"tensorrt": "10.1.0"}, "", False),
        ({"torch": "2.13.0"}, "10.1.0", False),
    ],
)
def test_versions_of_tensorrt(versions, here, well):
    assert (engines.tensorrt_mismatch(versions, here) == "") is well


def test_gpus_are_told_as_the_driver_tells_them(settings, monkeypatch):
    monkeypatch.setattr(gpu.shutil, "which", lambda name: f"/usr/bin/{name}")
    said = subprocess.CompletedProcess((), 0, "NVIDIA H100, 9.0, 570.1, 81559 MiB\n")
    monkeypatch.setattr(gpu.subprocess, "run", lambda *args, **kwargs: said)
    assert by_name(gpu.gpus(settings))["GPU"].found.startswith("NVIDIA H100, compute capability 9.0")

    def fail(*args, **kwargs):
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(gpu.subprocess, "run", fail)
    assert by_name(gpu.gpus(settings))["GPU"].bad


METRICS = b"""# TYPE medserve_requests_total counter
medserve_requests_total{route="segment"} 1
# TYPE medserve_stage_duration_seconds histogram
medserve_stage_duration_seconds_count{stage="encode"} 1
# TYPE medserve_pool_ready gauge
medserve_pool_ready{pool="adaptive"} 1
# TYPE medserve_selfcheck_ok gauge
medserve_selfcheck_ok{engine="sam_part",model="sam"} 0
# TYPE medserve_features_arena_budget_bytes gauge
medserve_features_arena_budget_bytes{pool="adaptive"} 1.048576e+06
# TYPE medserve_features_arena_full_total counter
medserve_features_arena_full_total{pool="adaptive"} 3
"""
APPLICATIONS = {"applications": {"medserve": {"status": "RUNNING", "deployments": {"Ingress": {"status": "UNHEALTHY"}}}}}


@pytest.fixture
def dashboard():
    """What Ray's dashboard answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(APPLICATIONS).encode()
            self.send_response(200 if self.path == "/api/serve/applications/" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said):
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_running_server_is_examined_from_outside(dashboard):
    with serve(Settings(), metrics=METRICS) as served:
        found = by_name(doctor.examine_cluster(served.url, served.address, dashboard))
        served.brain.ready = False
        later = by_name(doctor.examine_cluster(served.url, served.address))
    ok = ("HTTP front", "server version", "pool adaptive", "model sam", "metrics", "clock", "gRPC front", "Ray's dashboard")
    assert {name: found[name].level for name in ok} == dict.fromkeys(ok, "ok")
    assert found["self-check of sam_part"].bad
    assert found["Features arena"].level == "warn"
    assert found["deployment Ingress"].level == "warn"
    assert later["pool adaptive"].bad
    assert later["gRPC front"].bad


def test_what_is_not_there_is_a_finding():
    found = by_name(doctor.examine_cluster("http://127.0.0.1:9", "127.0.0.1:9", "http://127.0.0.1:9"))
    assert {finding.level for finding in found.values()} == {"fail"}
    assert set(found) == {"HTTP front", "gRPC front", "Ray's dashboard"}
    with serve(Settings()) as served:
        assert by_name(doctor.examine_cluster(served.url))["metrics"].bad


@contextmanager
def asked_whether_ready(answer):
    """A gRPC server that knows Triton's question."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
    server = grpc.server(ThreadPoolExecutor(1))
    service, method = reach.READY.strip("/").split("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.mark.parametrize(("answer", "state", "level"), [(reach.YES, "ready", "ok"), (b"", "not ready", "fail")])
def test_a_triton_elsewhere_is_asked(settings, answer, state, level):
    with asked_whether_ready(answer) as address:
        (found,) = machine.triton(settings.model_copy(update={"triton": TritonSettings(address=address)}))
    assert (found.found, found.level) == (f"not started here; at {address}: {state}", level)


@pytest.mark.parametrize(("status", "state"), [(404, "not Triton"), (503, "not reached")])
def test_what_is_not_a_triton_says_so(status, state):
    with answering(status) as address:
        assert reach.triton_state(address, timeout_s=30) == state


def test_a_triton_that_is_away_says_what_to_do(settings):
    (found,) = machine.triton(settings.model_copy(update={"triton": TritonSettings(address="127.0.0.1:1")}))
    assert found.bad
    assert "not reached" in found.found
    assert "triton.address" in found.remedy


def test_an_arena_that_is_there_already_needs_no_room(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shm, "ROOT", tmp_path)
    (tmp_path / "region").write_bytes(bytes(1 << 20))
    for budget, level in ((1 << 20, "ok"), (1 << 50, "warn")):
        features = FeaturesSettings(budget_bytes=budget, region="region")
        (found,) = machine.shared_memory(settings.model_copy(update={"features": features}))
        assert (found.what, found.level) == ("Features' arena", level)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "htp://x", "http://", "localhost"])
def test_what_is_not_a_url_is_told_how_to_write_one(url):
    (found,) = doctor.examine_cluster(url)
    assert (found.found, found.bad) == ("not a URL", True)
    assert "http://HOST:PORT" in found.remedy


def test_half_an_engine_is_missing(settings):
    folder = settings.repository.path / "sam_part" / "1"
    (folder / "model.xml").write_text("<net/>")
    assert model(settings).found == "engine sam_part is missing or incomplete"
    (folder / "model.bin").write_bytes(b"weights")
    assert not model(settings).bad
    (folder / "model.bin").write_bytes(b"")
    assert model(settings).bad
