"""A client over each front of the running server; the order of the tests."""

import pytest

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
