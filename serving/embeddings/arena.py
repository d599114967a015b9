"""Fixed slots in one shared-memory region, so that Features reach Triton without a copy through a message.

A slot belongs to the array that `place` gave and is free again when that array is gone: whoever still works with the array (a
decode in flight, say) keeps the slot from being used anew.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from serving import shm

SLOT_BYTES = 4 * 1024 * 1024
"""One image's Features of LiteMedSAM and of SAM: (1, 256, 64, 64) float32."""


class Arena:
    """`slots` slots in a file of /dev/shm that dies with `close` or, after a crash, with the next start's sweep.

    The file is sparse: memory is spent when a slot is first used. One event loop and its threads may use it.
    """

    def __init__(self, label: str, slots: int) -> None:
        self.region = f"{shm.prefix()}{label}"
        """The region's name, here and in Triton; it tells its owner (`serving.shm`)."""
        self.nbytes = slots * SLOT_BYTES
        self._free = list(range(slots))
        path = shm.ROOT / self.region
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.ftruncate(descriptor, self.nbytes)
            self._memory = mmap.mmap(descriptor, self.nbytes)
        finally:
            os.close(descriptor)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8)
        self._start = self._bytes.ctypes.data

    @property
    def free(self) -> int:
        """Slots that nothing uses."""
        return len(self._free)

    def place(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The same values in a slot; the array itself where it is larger than a slot, or no slot is free.

        Keep the array that this gives, not a view of it: the slot's life is that array's.
        """
        if array.nbytes > SLOT_BYTES or not self._free:
            return array
        number = self._free.pop()
        offset = number * SLOT_BYTES
        placed = self._bytes[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
        np.copyto(placed, array)
        weakref.finalize(placed, self._free.append, number).atexit = False
        return placed

    def locate(self, array: npt.NDArray[Any]) -> int | None:
        """The offset in the region of a contiguous array that `place` gave, or None."""
        offset = array.ctypes.data - self._start
        return offset if 0 <= offset < self.nbytes and array.flags.c_contiguous else None

    def close(self) -> None:
        """Remove the file. Arrays that were placed stay readable until they are gone."""
        (shm.ROOT / self.region).unlink(missing_ok=True)
