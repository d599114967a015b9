"""Answers laid in this process's memory: a stand-in for the server, which writes where the message says, and real memory."""

import asyncio
import mmap
import subprocess
import sys
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc.aio import Metadata
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from serving import shm
from serving.domain.request import Deadline
from serving.engines.engine import EngineSpec, TensorSpec
from serving.engines.outbox import MARK, Outbox
from serving.engines.triton import TritonServer
from serving.errors import Fault, Kind
from serving.manifest import EngineRecord
from serving.shm import Slot

MASKS = (TensorSpec("mask", "float32", (-1, 2, 3)), TensorSpec("iou", "float32", (-1, 1)))
SPEC = EngineSpec("decoder", (TensorSpec("points", "float32", (-1, 2)),), MASKS, join=1)
SLOT = Slot("features", 0, 1, 0)


class Triton:
    """tritonclient's client and the stub in one: maps what is registered with it and answers with the sum of the points."""

    def __init__(self, known=(), refuse=None):
        self.known, self.refuse = list(known), refuse
        self.taken_out, self.messages = [], []
        self.wrong_shape = self.trouble = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def get_system_shared_memory_status(self, **options):
        return SimpleNamespace(regions=dict.fromkeys(self.known))

    async def unregister_system_shared_memory(self, name, **options):
        self.taken_out.append(name)
        self.known.remove(name)

    async def register_system_shared_memory(self, name, key, nbytes, **options):
        if self.refuse is not None:
            raise self.refuse
        assert (shm.ROOT / name).stat().st_size == nbytes
        self.known.append(name)

    async def close(self):
        pass

    async def ModelInfer(self, message, timeout, metadata):
        self.messages.append(message)
        await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        points = np.frombuffer(message.raw_input_contents[-1], np.float32).reshape(1, -1, 2)
        sums = points.sum(axis=2)
        found = {"mask": np.repeat(sums, 6, axis=1).reshape(1, -1, 2, 3), "iou": sums[..., None]}
        made = pb.ModelInferResponse()
        for asked in message.outputs:
            value = found[asked.name]
            tensor = made.outputs.add(name=asked.name, datatype="FP32", shape=self.wrong_shape or value.shape)
            if "shared_memory_region" not in asked.parameters:
                made.raw_output_contents.append(value.tobytes())
                continue
            region = asked.parameters["shared_memory_region"].string_param
            if region not in self.known:
                reason = f"Unable to find shared memory region: '{region}'"
                raise grpc.aio.AioRpcError(grpc.StatusCode.INVALID_ARGUMENT, Metadata(), Metadata(), reason)
            tensor.parameters["shared_memory_region"].string_param = region
            at, size = (asked.parameters[f"shared_memory_{n}"].int64_param for n in ("offset", "byte_size"))
            assert size == value.nbytes
            with (shm.ROOT / region).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
                memory[at : at + size] = value.tobytes()
        return made


@pytest.fixture
def served():
    """Opens an engine before a server: (engine, server)."""
    opened = []

    def opening(triton, call_timeout_s=5.0, **of_outbox):
        server = TritonServer("nobody:1", call_timeout_s)
        server.outbox = Outbox(**{"places": 2, "place_bytes": 4096, **of_outbox})
        server._client = server._stub = triton
        opened.append(server)
        return server.engine(SPEC, EngineRecord(name="decoder", version="1", digest="d")), server

    yield opening
    for server in opened:
        server.outbox.close()
    assert list(shm.ROOT.glob(f"{shm.prefix()}{MARK}*")) == []


def points(*rows):
    return {"points": np.array([rows], np.float32)}


async def ask(engine, *rows, slot=SLOT, **said):
    return await engine.infer(points(*rows), Deadline.after(30), slot=slot, **said)


async def until(is_so):
    while not is_so():  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.001)


def is_laid(message):
    return all("shared_memory_region" in each.parameters for each in message.outputs)


async def test_answers_come_by_memory_and_are_this_callers_own(served):
    triton = Triton()
    engine, _ = served(triton)
    first = await ask(engine, (1, 2), (3, 4))
    second = await ask(engine, (5, 6), outputs=("iou",))
    assert all(is_laid(message) for message in triton.messages)
    np.testing.assert_array_equal(first["mask"], np.array([[[[3] * 3] * 2, [[7] * 3] * 2]], np.float32))
    np.testing.assert_array_equal(first["iou"], [[[3], [7]]])
    assert (set(second), second["iou"].item(), len(triton.known)) == ({"iou"}, 11, 1)


@pytest.mark.parametrize("rows", [1, 200])
async def test_what_is_too_large_goes_in_the_message(served, rows):
    triton = Triton()
    engine, _ = served(triton)
    found = await ask(engine, *[(n, n) for n in range(rows)])
    assert found["iou"].shape == (1, rows, 1)
    assert is_laid(triton.messages[0]) == (rows == 1)


async def test_calls_at_a_time_have_places_of_their_own_and_the_rest_go_in_messages(served):
    triton = Triton()
    engine, _ = served(triton)
    await ask(engine, (0, 0))
    triton.gate.clear()
    calls = [asyncio.create_task(ask(engine, (n, n))) for n in range(4)]
    await until(lambda: len(triton.messages) == 5)
    triton.gate.set()
    found = await asyncio.gather(*calls)
    assert [each["iou"].item() for each in found] == [0, 2, 4, 6]
    assert [is_laid(message) for message in triton.messages[1:]] == [True, True, False, False]
    await ask(engine, (1, 1))
    assert is_laid(triton.messages[-1])


async def test_a_place_of_a_call_that_was_given_up_is_kept_from_others_until_no_call_can_last(served):
    triton = Triton()
    engine, server = served(triton, call_timeout_s=0.2)
    await ask(engine, (0, 0))
    triton.gate.clear()
    call = asyncio.create_task(ask(engine, (1, 1)))
    await until(lambda: len(triton.messages) == 2)
    call.cancel()
    await asyncio.wait({call})
    assert len(server.outbox._free) == 1
    await until(lambda: len(server.outbox._free) == 2)


async def test_a_server_that_was_restarted_is_told_again(served):
    triton = Triton()
    engine, _ = served(triton)
    await ask(engine, (1, 1))
    triton.known.clear()
    assert (await ask(engine, (2, 2)))["iou"].item() == 4
    assert [is_laid(message) for message in triton.messages] == [True] * 3


async def test_a_server_that_does_not_share_memory_answers_in_messages_ever_after(served, caplog):
    triton = Triton(refuse=InferenceServerException("no such file /secret", "StatusCode.INTERNAL"))
    engine, _ = served(triton)
    for n in range(2):
        assert (await ask(engine, (n, n)))["iou"].item() == 2 * n
    assert not any(is_laid(message) for message in triton.messages)
    assert len(caplog.records) == 1


async def test_a_server_that_is_away_is_told_when_it_is_back(served):
    triton = Triton(refuse=InferenceServerException("away", "StatusCode.UNAVAILABLE"))
    engine, _ = served(triton)
    await ask(engine, (1, 1))
    triton.refuse = None
    await ask(engine, (1, 1))
    assert [is_laid(message) for message in triton.messages] == [False, True]


async def test_an_answer_of_another_shape_is_none(served):
    triton = Triton()
    triton.wrong_shape = (1, 1, 9)
    engine, _ = served(triton)
    with pytest.raises(Fault) as raised:
        await ask(engine, (1, 1))
    assert raised.value.kind is Kind.ENGINE_FAILED


@pytest.fixture
def dead():
    """The prefix of what a process owned that is gone."""
    code = "from serving import shm; print(shm.prefix())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


async def test_what_a_replica_left_behind_goes_and_the_living_and_strangers_stay(served, dead):
    left = shm.ROOT / f"{dead}{MARK}x"
    left.touch()
    triton = Triton(known=[left.name, f"{dead}features", f"{shm.prefix()}{MARK}other"])
    engine, _ = served(triton)
    await ask(engine, (1, 1))
    assert (triton.taken_out, left.exists()) == ([left.name], False)
