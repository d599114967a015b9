"""One model version in a Triton server as an `Engine`: what a call carries, and what comes back of it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from serving import shm, slots
from serving.domain.request import Deadline, Priority
from serving.engines import triton_faults, triton_message
from serving.engines.engine import EngineSpec, Tensors, TensorSpec, Timing, ignore
from serving.engines.triton_message import Place
from serving.errors import Fault, Kind
from serving.manifest import EngineRecord
from serving.telemetry import tracing

if TYPE_CHECKING:
    from serving.engines.triton import TritonServer

log = logging.getLogger(__name__)

SLOT = "slot"
"""The input, and the encoder's output, that names a slot: (1, 2) int64, index and generation."""


GIVEN_UP_S = 120.0
"""So long after a call was given up, no mask decoder and no engine on a GPU is still at work on it."""


class TritonEngine:
    """Implements `Engine` for one model version in Triton.

    Features go by the name of their slot to the Python-based backends (record.features "slot"), or as tensors at an offset of
    the registered region to native ones ("region").
    """

    def __init__(self, server: TritonServer, spec: EngineSpec, record: EngineRecord) -> None:
        self.spec = spec
        self._server = server
        self._name = record.name
        self._version = record.version
        self._by_region = record.features == "region"
        self._inputs = {tensor.name: tensor for tensor in spec.inputs}
        self._outputs = {tensor.name: tensor for tensor in spec.outputs}

    async def infer(
        self,
        inputs: Tensors,
        deadline: Deadline,
        *,
        outputs: tuple[str, ...] = (),
        priority: Priority = Priority.INTERACTIVE,
        slot: shm.Slot | None = None,
        timing: Timing = ignore,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run once and give the named outputs. Raises Fault as `Engine.infer` says."""
        sent = time.monotonic()
        try:
            with tracing.span("engine", engine=self._name):
                made = await self._call(inputs, deadline, outputs, slot)
        except BaseException:
            self._quarantine(slot)
            raise
        timing(0.0, time.monotonic() - sent)
        return made

    async def _call(
        self, inputs: Tensors, deadline: Deadline, outputs: tuple[str, ...], slot: shm.Slot | None
    ) -> dict[str, npt.NDArray[Any]]:
        left_s = min(deadline.check(f"engine {self._name}"), self._server.call_timeout_s)
        wanted = outputs or tuple(self._outputs)
        registration = None
        outbox, laid, answered = self._server.outbox, list[Place](), False
        if slot is not None and not self._by_region:
            laid = await outbox.lay(self._answers(inputs, wanted), self._server.client, left_s)
        try:
            if self._by_region and slot is not None:
                registration = await self._server.share(slot.region)
            message = self._message(inputs, wanted, slot, left_s, laid)
            response = await self._server.model_infer(message, left_s, tracing.handed_on())
            answered = True
            made = triton_message.outputs(response) | outbox.read(response, laid)
        except InferenceServerException as exc:
            if (registration is not None or laid) and triton_faults.REGION_IS_UNKNOWN in exc.message():
                outbox.forgotten()
                if registration is not None:
                    self._server.forgotten(registration)
                return await self._call(inputs, deadline, outputs, slot)
            raise triton_faults.fault_of(exc, self._name, deadline) from exc
        except asyncio.CancelledError:
            # A channel that dies cancels its calls: only a cancellation of this task is the caller's own.
            if _asked_to_stop():
                raise
            raise triton_faults.unavailable() from None
        finally:
            outbox.give_back(laid, 0.0 if answered else self._given_up_s())
        return {name: self._output(name, made.get(name)) for name in wanted}

    def _answers(self, inputs: Tensors, wanted: tuple[str, ...]) -> list[TensorSpec]:
        """The tensors that will come back, where the inputs tell their shapes; empty where not."""
        axis = self.spec.join
        specs = [self._outputs[name] for name in wanted]
        if axis is None or not all(spec.shape.count(-1) == 1 == -spec.shape[axis - 1] for spec in specs):
            return []
        rows = next(iter(inputs.values())).shape[axis]
        return [replace(spec, shape=tuple(rows if side == -1 else side for side in spec.shape)) for spec in specs]

    def _message(
        self, inputs: Tensors, wanted: tuple[str, ...], slot: shm.Slot | None, left_s: float, laid: list[Place]
    ) -> Any:
        """The whole call. Features go by the slot's name, or by their places in the region; `laid`: places of the answers."""
        sent = [(name, self._input(name, value)) for name, value in inputs.items()]
        reads: list[Place] = []
        writes: list[Place] = []
        if slot is not None and self._by_region:
            reads, writes = _places(self.spec.reads, slot), _places(self.spec.writes, slot)
        elif slot is not None:
            sent.insert(0, (SLOT, np.array([[slot.index, slot.generation]], np.int64)))
            wanted = (SLOT, *wanted) if self.spec.writes else wanted
        if laid:
            writes, wanted = [*writes, *laid], ()
        return triton_message.request(
            self._name, self._version, sent, wanted, reads=reads, writes=writes, timeout_us=int(left_s * 1e6)
        )

    def _quarantine(self, slot: shm.Slot | None) -> None:
        """A native backend may still work in a slot whose call was given up: it stays pinned for as long as a call may take.

        The Python-based backends pin their slots themselves.
        """
        if self._by_region and slot is not None:
            asyncio.get_running_loop().call_later(self._given_up_s(), lambda held: None, slot)

    def _given_up_s(self) -> float:
        return min(self._server.call_timeout_s, GIVEN_UP_S)

    def _input(self, name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        spec = self._inputs.get(name)
        if spec is None or not _fits(spec, value):
            log.error("engine %s: input %s has shape %s and dtype %s", self._name, name, value.shape, value.dtype)
            raise Fault(Kind.ENGINE_FAILED, "the engine was given tensors that it does not take")
        return value

    def _output(self, name: str, value: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        if value is None or not _fits(self._outputs[name], value):
            found = "nothing" if value is None else f"shape {value.shape} and dtype {value.dtype}"
            log.error("engine %s: output %s has %s", self._name, name, found)
            raise Fault(Kind.ENGINE_FAILED, "the engine gave tensors that are not what it declares")
        return value


def _places(tensors: tuple[TensorSpec, ...], slot: shm.Slot) -> list[Place]:
    """Where one image's Features lie in the slot's region."""
    sizes = [triton_message.nbytes(spec) for spec in tensors]
    starts = slots.offsets(sizes)
    return [
        Place(spec, slot.region, slot.offset + start, size) for spec, start, size in zip(tensors, starts, sizes, strict=False)
    ]


def _fits(spec: TensorSpec, value: npt.NDArray[Any]) -> bool:
    """The shape behind the batch axis is the spec's."""
    same_rank = value.ndim == len(spec.shape) + 1
    return (
        same_rank and value.dtype == spec.dtype and all(s in (-1, n) for s, n in zip(spec.shape, value.shape[1:], strict=True))
    )


def _asked_to_stop() -> bool:
    """Whether the task at work is being cancelled.

    A frame of its own: one that an error keeps, and that knows the task, would keep the error, and the slot with it.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
