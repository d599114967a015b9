"""A warm request to each engine of a model, through a real Triton of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving import shm, slots
from serving.build import precision, production
from serving.build.checks import Check, Target
from serving.domain.request import Deadline
from serving.embeddings import arena
from serving.engines import selfcheck
from serving.engines.engine import EngineSpec, TensorSpec
from serving.engines.triton import TritonServer
from serving.errors import Fault, SetupError
from serving.local.triton import EmbeddedTriton
from serving.manifest import EngineRecord
from serving.settings import Settings

Arrays = dict[str, npt.NDArray[Any]]
SPARE_BYTES = 1 << 16
"""Room for the tensors of a slot to begin on cache lines."""


def warm(target: Target, settings: Settings) -> Iterator[Check]:
    """A request to each engine in a Triton of its own, compared with what was stored at the build, or with the engine here."""
    names = sorted({record.name for _, _, record, _ in target.engines()})
    largest = max((_bytes(s.reads) + _bytes(s.writes) for s in target.specs.values()), default=0)
    with tempfile.TemporaryDirectory(prefix="medserve-verify-") as work:
        region = arena.create("verify", 4 * (largest + SPARE_BYTES), largest + SPARE_BYTES)
        try:
            triton = EmbeddedTriton(
                target.repository,
                names,
                Path(work),
                start_timeout_s=settings.triton.start_timeout_s,
                threads=settings.triton.threads,
                arena=region,
            )
            with triton:
                held = arena.Arena(region)
                features: Arrays = {}
                for _, spec, record, folder in sorted(
                    target.engines(), key=lambda engine: (engine[2].version, not engine[1].writes)
                ):
                    server = TritonServer(triton.grpc_address, settings.triton.call_timeout_s, held.nbytes)
                    yield asyncio.run(_ask(server, held, spec, record, folder, features))
        except SetupError as exc:
            yield Check("fail", "Triton", str(exc))
        finally:
            shm.remove(region)


async def _ask(
    server: TritonServer, held: arena.Arena, spec: EngineSpec, record: EngineRecord, folder: Path, features: Arrays
) -> Check:
    """`features`: of the model's image encoder, which is asked first and adds them."""
    what = f"warm request {record.name}/{record.version}"
    given, wanted, stored = _expected(spec, folder, features)
    slot = held.claim(f"{record.name[:48]}-{record.version}") if spec.reads or spec.writes else None
    if isinstance(slot, str):
        return Check("fail", what, "the arena has no slot")
    if slot is not None and spec.reads:
        _fill(slot, spec.reads, given)
        held.commit(slot, f"verify.{record.name[:40]}.{record.version}", b"")
    try:
        own = {tensor.name: given[tensor.name] for tensor in spec.inputs}
        names = tuple(tensor.name for tensor in spec.outputs if tensor.name in wanted)
        got = dict(
            await server.engine(spec, record).infer(own, Deadline.after(server.call_timeout_s), outputs=names, slot=slot)
        )
        if slot is not None:
            features |= _features(slot, spec.writes)
            got |= {tensor.name: features[tensor.name] for tensor in spec.writes}
    except Fault as exc:
        return Check("fail", what, exc.message)
    finally:
        await server.close()
    agrees = selfcheck.matches({name: selfcheck.sample(value) for name, value in wanted.items()}, got)
    return Check("ok" if agrees else "fail", what, f"{'agrees with' if agrees else 'differs from'} {stored}")


def _expected(spec: EngineSpec, folder: Path, features: Arrays) -> tuple[Arrays, Arrays, str]:
    """Inputs, outputs and where those come from: stored beside the engine, else of the engine in this process.

    Features that are not stored are those of the encoder that was asked before.
    """
    read = {tensor.name: features[tensor.name] for tensor in spec.reads if tensor.name in features}
    kept = folder / selfcheck.FILE
    if kept.exists():
        given, wanted = selfcheck.load(kept)
        if all(tensor.name in {**read, **given} for tensor in production.inputs(spec)):
            return {**read, **given}, wanted, "what the build stored"
    given = {**selfcheck.draw([_range(tensor) for tensor in production.inputs(spec)]), **read}
    run = precision.open_openvino(folder) if (folder / "model.xml").exists() else precision.open_onnx(folder)
    return given, run(given), "the same engine in this process"


def _range(tensor: TensorSpec) -> selfcheck.Input:
    return tensor.name, tensor.dtype, (1, *production.sized(tensor)), 0.0, 1.0 if tensor.dtype == "float32" else 2.0


def _fill(slot: shm.Slot, tensors: tuple[TensorSpec, ...], given: Arrays) -> None:
    for place, tensor in zip(_places(slot, tensors), tensors, strict=True):
        place[:] = given[tensor.name].reshape(-1).view(np.uint8)


def _features(slot: shm.Slot, tensors: tuple[TensorSpec, ...]) -> Arrays:
    found = {}
    for place, tensor in zip(_places(slot, tensors), tensors, strict=True):
        found[tensor.name] = np.array(place).view(tensor.dtype).reshape(1, *tensor.shape)
    return found


def _places(slot: shm.Slot, tensors: tuple[TensorSpec, ...]) -> list[npt.NDArray[np.uint8]]:
    """Where each tensor lies in the slot, as bytes."""
    sizes = [_bytes((tensor,)) for tensor in tensors]
    memory = np.memmap(shm.ROOT / slot.region, np.uint8, "r+")
    starts = [slot.offset + start for start in slots.offsets(sizes)]
    return [memory[start : start + size] for start, size in zip(starts, sizes, strict=False)]


def _bytes(tensors: tuple[TensorSpec, ...]) -> int:
    return sum(int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize for tensor in tensors)
