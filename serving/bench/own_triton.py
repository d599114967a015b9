"""The server's own Triton, asked for the same decode on the same Features by tritonclient: what lies behind the front door."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton_grpc

from serving.bench import bare
from serving.bench.plain_triton import sent
from serving.bench.server import Server
from serving.slots import READY, Slots

Decode = Callable[[], npt.NDArray[np.float32]]


def decoder(
    server: Server, record: dict[str, Any], image_id: str, points: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> Decode | None:
    """A call of the decoder on an image that the server has encoded. None where its processes are not known here."""
    pids = server.find("bin/tritonserver")
    if not pids:
        return None
    port = re.search(r"--grpc-port=(\d+)", server.processes()[pids[0]])
    slot = _slot(pids[0], image_id)
    if port is None or slot is None:
        return None
    client = triton_grpc.InferenceServerClient(f"127.0.0.1:{port[1]}")
    outputs = [triton_grpc.InferRequestedOutput(name) for name in bare.ONE_MASK]

    def call() -> npt.NDArray[np.float32]:
        inputs = [sent("slot", slot), sent("points", points), sent("labels", labels)]
        found: npt.NDArray[np.float32] = client.infer(record["name"], inputs, outputs=outputs).as_numpy("mask")
        return found

    return call


def _slot(pid: int, image_id: str) -> npt.NDArray[np.int64] | None:
    """(1, 2) int64, index and generation, as the arena's table has it; Triton's environment names the arena."""
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    region = next((each.split(b"=", 1)[1].decode() for each in environ if each.startswith(b"MEDSERVE_ARENA=")), "")
    if not region:
        return None
    slots = Slots(region)
    try:
        with slots.locked() as table:
            for index, row in enumerate(table):
                if row["handle"] == image_id.encode() and row["state"] == READY:
                    return np.array([[index, int(row["generation"])]], np.int64)
    finally:
        slots.close()
    return None
