"""A GPU's region in place of one of /dev/shm: the same registration, by a stand-in for CUDA and for the server."""

import asyncio
import sys
from types import SimpleNamespace

import pytest

from serving import shm
from serving.engines import memory
from serving.engines.memory import CudaMemory
from serving.engines.triton import TritonServer
from serving.errors import SetupError

REGION = f"{shm.prefix()}features"


class NoMemory(Exception):
    """As tritonclient's CudaSharedMemoryException."""


class Cuda:
    """Allocates up to a MiB."""

    CudaSharedMemoryException = NoMemory

    def __init__(self):
        self.held = []

    def create_shared_memory_region(self, name, nbytes, device):
        if nbytes > 1 << 20:
            raise NoMemory
        self.held.append((name, nbytes, device))
        return self.held[-1]

    def get_raw_handle(self, handle):
        return b"handle of " + handle[0].encode()

    def destroy_shared_memory_region(self, handle):
        self.held.remove(handle)


class Client:
    def __init__(self, known=()):
        self.known, self.told = list(known), []

    async def get_cuda_shared_memory_status(self, client_timeout):
        return SimpleNamespace(regions=dict.fromkeys(self.known))

    async def register_cuda_shared_memory(self, name, raw_handle, device_id, byte_size, client_timeout):
        self.told.append((name, raw_handle, device_id, byte_size))
        self.known.append(name)

    async def unregister_cuda_shared_memory(self, name, client_timeout):
        self.known.remove(name)


@pytest.fixture
def cuda(monkeypatch):
    made = Cuda()
    monkeypatch.setattr(memory, "_cuda", lambda: made)
    return made


async def test_a_gpu_s_region_is_registered_once_by_its_handle(cuda):
    gpu = CudaMemory(REGION, 4096, device=1)
    server = TritonServer("nobody:1", 1, memory=gpu)
    server._client = Client()
    await asyncio.gather(*(server.share(REGION) for _ in range(3)))
    assert server._client.told == [(REGION, b"handle of " + REGION.encode(), 1, 4096)]
    gpu.close()
    assert cuda.held == []


async def test_dead_owners_regions_are_taken_out(cuda):
    server = TritonServer("nobody:1", 1, memory=CudaMemory(REGION, 4096))
    server._client = Client(known=["medserve_1_1_features"])
    await server.share(REGION)
    assert server._client.known == [REGION]


def test_too_much_is_said_in_one_line(cuda):
    with pytest.raises(SetupError, match=r"GPU 0 does not give 2 MiB for Features"):
        CudaMemory(REGION, 2 << 20)


def test_without_its_package_it_is_said_what_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tritonclient.utils.cuda_shared_memory", None)
    monkeypatch.delattr("tritonclient.utils.cuda_shared_memory", raising=False)
    with pytest.raises(SetupError, match="cuda-python"):
        CudaMemory(REGION, 4096)
