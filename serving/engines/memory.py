"""Memory that Triton maps, so that engines read and write Features in it: of the node, or of one of its GPUs."""

from __future__ import annotations

from typing import Any, Protocol

from serving import shm
from serving.errors import SetupError
from serving.slots import PAGE


class Memory(Protocol):
    """How a region is made known to a server. `client`: tritonclient's asynchronous one, whose exceptions pass through."""

    async def known(self, client: Any, timeout_s: float) -> set[str]:
        """Names of the regions that the server has mapped."""
        ...

    async def register(self, client: Any, region: str, timeout_s: float) -> None:
        """Let the server map a region."""
        ...

    async def unregister(self, client: Any, region: str, timeout_s: float) -> None:
        """Let the server unmap a region."""
        ...

    async def note(self, client: Any, name: str, timeout_s: float) -> None:
        """Have the server map a page by this name, which begins like the region's: whoever asks what it has mapped finds it."""
        ...


class SystemMemory:
    """Implements `Memory` for a file of /dev/shm of `nbytes` bytes, by its name. `headers`: the key, where one is asked for."""

    def __init__(self, nbytes: int, headers: dict[str, str] | None = None) -> None:
        self._nbytes = nbytes
        self._headers = headers

    async def known(self, client: Any, timeout_s: float) -> set[str]:
        """See `Memory`."""
        return set((await client.get_system_shared_memory_status(headers=self._headers, client_timeout=timeout_s)).regions)

    async def register(self, client: Any, region: str, timeout_s: float) -> None:
        """See `Memory`."""
        await client.register_system_shared_memory(
            region, region, self._nbytes, headers=self._headers, client_timeout=timeout_s
        )

    async def unregister(self, client: Any, region: str, timeout_s: float) -> None:
        """See `Memory`."""
        await client.unregister_system_shared_memory(region, headers=self._headers, client_timeout=timeout_s)

    async def note(self, client: Any, name: str, timeout_s: float) -> None:
        """See `Memory`. A page of its own, which only the server keeps: it maps no file under two names."""
        path = shm.ROOT / name
        path.write_bytes(bytes(PAGE))
        try:
            await client.register_system_shared_memory(name, name, PAGE, headers=self._headers, client_timeout=timeout_s)
        finally:
            path.unlink(missing_ok=True)


class CudaMemory:
    """Implements `Memory` for `nbytes` bytes of one GPU, allocated here and opened by the server through CUDA's IPC.

    Not measured, and no setting chooses it yet: the arena's table stays in /dev/shm, and one process of the node must own the
    allocation for all replicas. Raises SetupError where the GPU or tritonclient's CUDA part is missing.
    """

    def __init__(self, region: str, nbytes: int, device: int = 0) -> None:
        self._cuda = _cuda()
        self._region, self._nbytes, self._device = region, nbytes, device
        try:
            self._handle = self._cuda.create_shared_memory_region(region, nbytes, device)
        except self._cuda.CudaSharedMemoryException as exc:
            raise SetupError(
                f"GPU {device} does not give {nbytes >> 20} MiB for Features: lower features.budget_bytes"
            ) from exc

    async def known(self, client: Any, timeout_s: float) -> set[str]:
        """See `Memory`."""
        return set((await client.get_cuda_shared_memory_status(client_timeout=timeout_s)).regions)

    async def register(self, client: Any, region: str, timeout_s: float) -> None:
        """See `Memory`. `region` is the one allocated here."""
        if region != self._region:
            raise ValueError(f"{region} is not the GPU's region")
        raw = self._cuda.get_raw_handle(self._handle)
        await client.register_cuda_shared_memory(region, raw, self._device, self._nbytes, client_timeout=timeout_s)

    async def unregister(self, client: Any, region: str, timeout_s: float) -> None:
        """See `Memory`."""
        await client.unregister_cuda_shared_memory(region, client_timeout=timeout_s)

    async def note(self, client: Any, name: str, timeout_s: float) -> None:
        """See `Memory`."""
        raw = self._cuda.get_raw_handle(self._handle)
        await client.register_cuda_shared_memory(name, raw, self._device, PAGE, client_timeout=timeout_s)

    def close(self) -> None:
        """Free the GPU's memory. The server must have unmapped it."""
        self._cuda.destroy_shared_memory_region(self._handle)


def _cuda() -> Any:
    """tritonclient's CUDA part, which needs NVIDIA's own Python package."""
    try:
        from tritonclient.utils import cuda_shared_memory
    except (ImportError, RuntimeError) as exc:
        raise SetupError("Features in a GPU's memory need the package cuda-python: pip install cuda-python") from exc
    return cuda_shared_memory
