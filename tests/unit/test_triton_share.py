"""How a server is told of the arena's region, where the telling fails: a stand-in for the client, no server."""

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace

import grpc
import pytest
from grpc.aio import Metadata
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from serving import shm
from serving.domain.request import Deadline
from serving.engines.engine import EngineSpec, TensorSpec
from serving.engines.triton import TritonServer
from serving.errors import Fault, Kind
from serving.manifest import EngineRecord
from serving.shm import Slot

MINE = f"{shm.prefix()}features"


class Client:
    """Counts registrations; the first `cancelled` of them die as calls on a dying channel do."""

    def __init__(self, cancelled=0, known=(), unregister=None, register=None):
        self.cancelled, self.known = cancelled, list(known)
        self.unregister, self.register = unregister, register
        self.registered, self.taken_out, self.calls = [], [], 0

    async def get_system_shared_memory_status(self, **options):
        if self.cancelled:
            self.cancelled -= 1
            raise asyncio.CancelledError
        return SimpleNamespace(regions=dict.fromkeys(self.known))

    async def unregister_system_shared_memory(self, name, **options):
        if self.unregister is not None:
            raise self.unregister
        self.taken_out.append(name)
        self.known.remove(name)

    async def register_system_shared_memory(self, name, key, nbytes, **options):
        if self.register is not None:
            raise self.register
        assert name.startswith(key)
        assert nbytes == 4096
        self.registered.append(name)
        self.known.append(name)

    async def ModelInfer(self, message, timeout, metadata):
        """As a server that knows only what is registered with it."""
        self.calls += 1
        if MINE not in self.known:
            reason = f"Unable to find shared memory region: '{MINE}'"
            raise grpc.aio.AioRpcError(grpc.StatusCode.INVALID_ARGUMENT, Metadata(), Metadata(), reason)
        tensor = pb.ModelInferResponse.InferOutputTensor(name="mask", datatype="FP32", shape=[1, 2])
        return pb.ModelInferResponse(outputs=[tensor], raw_output_contents=[bytes(8)])


def sharing(client):
    server = TritonServer("nobody:1", 1, 4096)
    server._client = server._stub = client
    return server


@pytest.fixture(scope="module")
def dead():
    """A region of a process that is gone."""
    code = "from serving import shm; print(shm.prefix())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() + "features"


async def test_a_registration_that_was_cancelled_is_made_again():
    server = sharing(Client(cancelled=1))
    with pytest.raises(asyncio.CancelledError):
        await server.share(MINE)
    assert await server.share(MINE) is not None
    assert server.client.registered == [MINE]


async def test_many_at_once_register_once():
    server = sharing(Client())
    assert len(set(await asyncio.gather(*(server.share(MINE) for _ in range(5))))) == 1
    assert server.client.registered == [MINE]


async def test_only_the_registration_that_failed_is_forgotten():
    server = sharing(Client())
    stale = await server.share(MINE)
    server.client.known.clear()
    server.forgotten(stale)
    fresh = await server.share(MINE)
    assert fresh is not stale
    server.forgotten(stale)
    assert await server.share(MINE) is fresh
    assert server.client.registered == [MINE, MINE]


async def test_what_a_replica_before_registered_stays():
    server = sharing(Client(known=[MINE]))
    await server.share(MINE)
    assert (server.client.registered, server.client.taken_out) == ([], [])


async def test_dead_owners_regions_are_taken_out_and_living_ones_and_strangers_stay(dead):
    living = f"{shm.prefix(os.getppid())}features"
    server = sharing(Client(known=[dead, living, "strange"]))
    await server.share(MINE)
    assert (server.client.taken_out, server.client.registered) == ([dead], [MINE])


async def test_a_dead_owner_s_region_that_is_still_read_does_not_stop_the_registration(dead):
    reason = InferenceServerException(f"Cannot unregister shared memory region '{dead}', it is currently in use.")
    server = sharing(Client(known=[dead], unregister=reason))
    await server.share(MINE)
    assert server.client.registered == [MINE]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("StatusCode.UNAVAILABLE", Kind.ENGINE_UNAVAILABLE),
        ("StatusCode.CANCELLED", Kind.ENGINE_UNAVAILABLE),
        ("StatusCode.INTERNAL", Kind.ENGINE_FAILED),
        (None, Kind.ENGINE_FAILED),
    ],
)
async def test_a_failed_registration_is_told_and_made_again(status, kind):
    server = sharing(Client(register=InferenceServerException("/secret/path", status)))
    for _ in range(2):
        with pytest.raises(Fault) as raised:
            await server.share(MINE)
        assert raised.value.kind is kind
        assert "secret" not in raised.value.message
    server.client.register = None
    await server.share(MINE)
    assert server.client.registered == [MINE]


async def test_a_waiter_that_leaves_does_not_stop_the_registration():
    server = sharing(Client())
    leaver = asyncio.create_task(server.share(MINE))
    await asyncio.sleep(0)
    leaver.cancel()
    await server.share(MINE)
    assert server.client.registered == [MINE]


def engine(server, features="region"):
    spec = EngineSpec("e", (), (TensorSpec("mask", "float32", (2,)),), reads=(TensorSpec("x0", "float32", (4,)),))
    return server.engine(spec, EngineRecord(name="e", digest="d", features=features))


async def test_a_restarted_server_is_told_again_within_the_call():
    server = sharing(Client())
    for _ in range(2):
        found = await engine(server).infer({}, Deadline.after(60), slot=Slot(MINE, 0, 1, 4096))
        assert found["mask"].shape == (1, 2)
        server.client.known.clear()
    assert (server.client.registered, server.client.calls) == ([MINE, MINE], 3)


async def test_engines_that_read_no_region_register_none():
    server = sharing(Client(known=[MINE]))
    await engine(server, "slot").infer({}, Deadline.after(60), slot=Slot(MINE, 0, 1, 4096))
    await engine(server).infer({}, Deadline.after(60))
    assert server._registration is None


async def test_a_server_remembers_a_note_of_a_region_and_forgets_it_with_its_owner():
    client = Client()
    server = sharing(client)
    assert not await server.remembers(MINE, "passed.1")
    await server.note(MINE, "passed.1")
    assert await server.remembers(MINE, "passed.1")
    assert not await server.remembers(MINE, "passed.2")
    (second,) = client.known
    assert second.startswith(MINE)
    assert not shm.owner_is_gone(second)
    assert shm.owner_is_gone(second.replace(shm.prefix(), "medserve_1_1_"))


async def test_a_server_that_takes_no_note_remembers_none():
    refused = InferenceServerException("restricted protocol", "StatusCode.UNAVAILABLE")
    server = sharing(Client(register=refused))
    await server.note(MINE, "passed.1")
    assert not await server.remembers(MINE, "passed.1")
