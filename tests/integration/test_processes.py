"""What the server is made of: no PyTorch, not too much memory, loopback alone, nothing left behind."""

from pathlib import Path

import grpc
import httpx
import pytest
from running import Medserve, is_alive, resident_bytes, wait_until

from serving.client import Client, GrpcClient

pytestmark = pytest.mark.integration
LISTEN = "0A"


def test_no_process_has_pytorch(server):
    with Client(server.http_url) as client:
        client.models()
    maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in server.processes()}
    assert any("openvino" in text for text in maps.values())
    assert not [pid for pid, text in maps.items() if "libtorch" in text]


def test_everything_together_is_resident_in_four_gibibytes(server):
    total = sum(resident_bytes(pid) for pid in server.processes())
    assert 0.5 * 2**30 < total <= 4 * 2**30


def test_readiness_health_and_reflection(server):
    assert httpx.get(f"{server.http_url}/livez").status_code == 200
    ready = httpx.get(f"{server.http_url}/readyz")
    assert ready.status_code == 200
    with GrpcClient(server.grpc_address) as client:
        assert client.ready()
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    with grpc.insecure_channel(server.grpc_address) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "medserve.v1.Inference" in services


def test_a_request_id_is_echoed_once(server):
    answer = httpx.get(f"{server.http_url}/v1/models", headers={"X-Request-ID": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]


def test_a_stop_leaves_nothing():
    with Medserve(MEDSERVE_REPOSITORY__MODELS="synthetic-cxr-clip") as running:
        below = [pid for pid in running.processes() if pid != running.pid]
        assert len(below) > 4
    assert running.status == 0
    wait_until(lambda: not [pid for pid in below if is_alive(pid)], 15)
    assert not list(Path("/dev/shm").glob(f"medserve_{running.pid}_*"))
    assert not Path(f"/tmp/medserve-{running.pid}").exists()
