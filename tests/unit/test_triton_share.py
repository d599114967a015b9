"""How a server is told of shared memory, where the telling fails: a stand-in for the client, no server."""

import asyncio
from types import SimpleNamespace

import pytest

from serving.engines.triton import TritonServer


class Client:
    """Counts registrations; the first `cancelled` of them die as calls on a dying channel do."""

    def __init__(self, cancelled=0):
        self.cancelled, self.registered = cancelled, 0

    async def get_system_shared_memory_status(self, **options):
        if self.cancelled:
            self.cancelled -= 1
            raise asyncio.CancelledError
        return SimpleNamespace(regions={})

    async def register_system_shared_memory(self, *region, **options):
        self.registered += 1


def sharing(client):
    server = TritonServer("nobody:1", 1, SimpleNamespace(region="r", nbytes=1))
    server._client = client
    return server


async def test_a_registration_that_was_cancelled_is_made_again():
    server = sharing(Client(cancelled=1))
    with pytest.raises(asyncio.CancelledError):
        await server.share()
    assert await server.share() is not None
    assert server.client.registered == 1


async def test_only_the_registration_that_failed_is_forgotten():
    server = sharing(Client())
    await server.share()
    stale = server.registration
    server.forgotten(stale)
    await server.share()
    server.forgotten(stale)
    await server.share()
    assert server.client.registered == 2
