"""A client over each front of the running server."""

import pytest

from serving.client import Client, GrpcClient


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    opened = Client(server.http_url) if request.param == "http" else GrpcClient(server.grpc_address)
    with opened as made:
        yield made
