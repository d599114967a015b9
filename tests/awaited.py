"""The four clients by name, and one way to use them all."""

import inspect

from serving.client import AsyncClient, AsyncGrpcClient, Client, GrpcClient

CLIENTS = {"http": Client, "grpc": GrpcClient, "http async": AsyncClient, "grpc async": AsyncGrpcClient}


class Awaited:
    """A client whose methods are awaited, whether they block or not."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        method = getattr(self.client, name)

        async def call(*args, **said):
            result = method(*args, **said)
            return await result if inspect.isawaitable(result) else result

        return call
