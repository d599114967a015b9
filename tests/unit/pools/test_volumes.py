"""A volume through the router, its gate and a pool: events as they come, faults, the place held and given back, cancelling."""

import asyncio
import time
from contextlib import aclosing

import pytest

from serving.domain.answer import ModelInfo
from serving.domain.image import EncodedImage
from serving.domain.prompt import Box, ObjectPrompt
from serving.domain.request import Deadline, Encode, Priority, Request
from serving.domain.volume import (
    EncodedVolume,
    SegmentVolume,
    VolumeAccepted,
    VolumeAnswer,
    VolumeFormat,
    VolumeFrame,
    VolumeObject,
    VolumeProgress,
)
from serving.errors import Fault, Kind
from serving.manifest import Manifest
from serving.pools.local import LocalPoolClient
from serving.pools.pool import Pool
from serving.router.admission import Limits, Permit
from serving.router.brain import ServedModel
from serving.router.gate import Gate
from serving.router.router import Router
from serving.telemetry.metrics import Metrics

MANIFEST = Manifest(model="sam", family="sam", pool="adaptive", digest="", source="", licence="", engines={})
INFO = ModelInfo("sam", "sam", "adaptive", "")
FRAME = VolumeFrame((4, 4, 3))
OBJECT = VolumeObject(ObjectPrompt(box=Box(0, 0, 1, 1)), key=1)
TASK = SegmentVolume(EncodedVolume((b"V",)), (OBJECT,))


class Sam:
    manifest = MANIFEST

    def __init__(self, trouble=None, hang=False):
        self.trouble, self.hang, self.cancelled = trouble, hang, False

    async def answer_volume(self, request, stages, tell, volume=None):
        assert request.priority is Priority.BULK
        await tell(VolumeAccepted(FRAME, 1, 3, INFO))
        try:
            for n in range(3):
                if n == 1 and self.hang:
                    await asyncio.sleep(60)
                await tell(VolumeProgress(n + 1, 3, n))
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.trouble is not None:
            raise self.trouble
        return VolumeAnswer(b"data", VolumeFormat.NIFTI, FRAME, (), INFO, {"encode": 0.3})


def serving(family, metrics=None):
    async def ready():
        return True

    metrics = metrics or Metrics()
    pool = Pool("adaptive", {"sam": family}, ready, metrics, lambda: None)
    gate = Gate("adaptive", Limits(1, 4, 2, max_wait_s=0.05, max_bulk_wait_s=2.0))
    served = (ServedModel(MANIFEST, ("box", "volume"), {}),)
    return Router({"adaptive": LocalPoolClient(pool)}, {"adaptive": gate}, served), gate


def request(seconds=30.0):
    return Request(TASK, Deadline.after(seconds), "id", priority=Priority.BULK)


async def test_events_come_in_order_and_slices_are_counted():
    metrics = Metrics()
    router, gate = serving(Sam(), metrics)
    events = []
    async for event in router.answer_volume(request()):
        assert len(gate) == 1
        events.append(event)
    assert [type(each).__name__ for each in events] == ["VolumeAccepted", *["VolumeProgress"] * 3, "VolumeAnswer"]
    assert len(gate) == 0
    text = metrics.scrape().decode()
    assert 'medserve_volume_slices_total{model="sam",pool="adaptive"} 3.0' in text
    assert 'medserve_stage_duration_seconds_sum{model="sam",pool="adaptive",stage="encode"} 0.3' in text


@pytest.mark.parametrize(
    ("trouble", "kind"), [(Fault(Kind.ENGINE_FAILED, "no"), Kind.ENGINE_FAILED), (ValueError("/secret"), Kind.INTERNAL)]
)
async def test_a_failure_is_a_fault_and_gives_the_place_back(trouble, kind):
    router, gate = serving(Sam(trouble))
    with pytest.raises(Fault) as caught:
        async for _ in router.answer_volume(request()):
            pass
    assert caught.value.kind is kind
    assert "secret" not in caught.value.message
    assert len(gate) == 0


async def test_closing_cancels_the_work_and_gives_the_place_back():
    family = Sam(hang=True)
    router, gate = serving(family)
    async with aclosing(router.answer_volume(request())) as events:
        async for event in events:
            if isinstance(event, VolumeProgress):
                break
    assert family.cancelled
    assert len(gate) == 0


async def test_the_deadline_ends_it():
    router, _ = serving(Sam(hang=True))
    with pytest.raises(Fault) as caught:
        async for _ in router.answer_volume(request(0.1)):
            pass
    assert caught.value.kind is Kind.DEADLINE


async def test_a_volume_at_work_holds_nobody_else_up():
    family = Sam()
    router, gate = serving(family)
    async for _ in router.answer_volume(request()):
        pass  # what a volume costs is known now
    family.hang = True
    before = time.monotonic()  # by this clock nothing of the second one is done, however slow the test is

    def waits_s(task, priority):
        asked = Request(task, Deadline(2e9), "id", priority=priority, tenant="another")
        permit, found = gate.enter(asked.with_model("sam"), before)
        assert isinstance(permit, Permit)
        gate.leave(permit, before)
        return found.ahead_s + found.begun_s

    async with aclosing(router.answer_volume(request())) as events:
        await anext(events)
        for priority in Priority:
            assert waits_s(Encode(EncodedImage(b"pixels")), priority) == 0.0
        assert waits_s(TASK, Priority.BULK) > 0, "another volume does wait"


async def test_a_model_without_volumes_is_not_chosen():
    router, _ = serving(Sam())
    router._served = (ServedModel(MANIFEST, ("box",), {}),)
    with pytest.raises(Fault) as caught:
        await anext(router.answer_volume(request()))
    assert caught.value.kind is Kind.UNKNOWN_MODEL
