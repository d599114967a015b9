"""A client over each front of the running server, a small MedSAM that several files serve, and the order of the tests."""

import pytest
import torch
from sams import tiny_sam

from serving.build.build import build
from serving.client import Client, GrpcClient

LAST = "test_operations.py"


def pytest_collection_modifyitems(items):
    """Operations come last: `make test` has nothing beside them then."""
    items.sort(key=lambda item: item.path.name == LAST)


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    opened = Client(server.http_url) if request.param == "http" else GrpcClient(server.grpc_address)
    with opened as made:
        yield made


@pytest.fixture(scope="session")
def small_medsam(tmp_path_factory):
    """(the repository, the model's record, its checkpoint): built of the published layout in a training script's wrapping."""
    work = tmp_path_factory.mktemp("medsam")
    checkpoint = work / "tiny.pth"
    torch.save({"model": {f"module.{key}": value for key, value in tiny_sam().state_dict().items()}}, checkpoint)
    said = {"checkpoints": (checkpoint,), "preprocessing": "july-2023", "say": lambda line: None}
    (manifest,) = build("medsam", work, work / "repository", **said)
    return work / "repository", manifest, checkpoint
