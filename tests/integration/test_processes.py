"""What the server is made of: no PyTorch, not too much memory; and that it says it is ready."""

from pathlib import Path

import grpc
import httpx
import pytest
from running import resident_bytes

from serving.client import Client, GrpcClient

pytestmark = pytest.mark.integration


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
