"""Every way of sending a volume, over both fronts of one fake brain: what it is understood to ask, and how large it may be."""

from dataclasses import replace

import numpy as np
import pytest

from serving.client import Client, GrpcClient, MedserveError
from serving.domain.image import LinearWindow
from serving.domain.prompt import Box
from serving.domain.request import Priority
from serving.domain.volume import KeyMask, VolumeFormat
from serving.router import dispatch
from tests.unit.edge import fakes
from tests.unit.edge.volumes.asking import BOX, WAYS, http, lines


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_sending_streams_slice_by_slice(served, way):
    with http(served) as client:
        response = client.post("/v1/volumes/segment", **WAYS[way])
        assert response.headers["content-type"] == "application/x-ndjson"
        accepted, *progress, done = lines(response)
        assert (accepted["event"], accepted["total"], accepted["frame"]["size"]) == ("accepted", 6, [64, 48, 6])
        assert response.headers["location"] == f"/v1/volumes/{accepted['job']}"
        assert [(each["event"], each["done"], each["slice"]) for each in progress] == [("progress", n + 1, n) for n in range(6)]
        assert [each["seq"] for each in (accepted, *progress, done)] == list(range(8))
        assert done["objects"][0] == {"object": 0, "voxels": 12, "first": 1, "last": 3}
        result = client.get(done["result"])
    assert result.content.startswith(b"label map of V")
    assert len(result.content) == done["bytes"]
    assert result.headers["content-disposition"] == 'attachment; filename="mask.nii.gz"'
    request = served.brain.seen[0]
    assert request.priority is Priority.BULK
    assert request.task.objects[0].shown.box == Box(1, 2, 20, 30)
    assert (request.task.objects[0].first, request.task.objects[0].last) == (1, 3)


def test_the_general_form_is_understood_on_both_fronts(served):
    objects = [
        {"mask": np.zeros((6, 64), bool), "slice": 2, "first": 1, "last": 4},
        {"points": [[3, 4, 1], [5, 6, 0]], "slice": 0},
    ]
    said = {"objects": objects, "window": {"center": 40, "width": 400}, "axis": 1, "output": "packed"}
    with Client(served.url, token="token-1") as client, GrpcClient(served.address, token="token-1") as other:
        client.segment_volume(b"V", boxes=[[1, 0, 5, 4]], slice=7, **said)
        other.segment_volume(b"V", boxes=[[1, 0, 5, 4]], slice=7, **said)
    first, second = (request.task for request in served.brain.seen)
    assert first.axis == second.axis == 1
    assert first.output is second.output is VolumeFormat.PACKED
    assert first.volume.window == second.volume.window == LinearWindow(40, 400)
    for task in (first, second):
        box, key, points = task.objects
        assert (box.key, box.first, box.shown.box) == (7, None, Box(1, 0, 5, 4))
        assert isinstance(key.shown, KeyMask)
        assert (key.key, key.first, key.last, key.shown.mask.shape) == (2, 1, 4, (6, 64))
        assert [(p.x, p.positive) for p in points.shown.points] == [(3, True), (5, False)]


def test_one_object_is_shown_by_a_box_on_each_slice_on_both_fronts(served):
    shown = [{"box": [1, 2, z, 20 + z, 30, z], "label": 0} for z in (3, 1, 2)] + [{"box": [1, 0, 5, 4], "slice": 2, "label": 1}]
    with Client(served.url, token="token-1") as client, GrpcClient(served.address, token="token-1") as other:
        client.segment_volume(b"V", objects=shown)
        other.segment_volume(b"V", objects=shown)
    for task in (request.task for request in served.brain.seen):
        assert [(each.label, each.first, each.last) for each in task.objects] == [
            (0, 3, 3),
            (0, 1, 1),
            (0, 2, 2),
            (1, None, None),
        ]
        assert task.objects[0].shown.box == Box(1, 2, 23, 30)


def test_class_names_with_a_support_set_are_understood_on_both_fronts(served, monkeypatch):
    sam = fakes.SERVED[0]
    monkeypatch.setattr(fakes, "SERVED", (replace(sam, prompts=(dispatch.CLASSES,)),))
    with Client(served.url, token="token-1") as client, GrpcClient(served.address, token="token-1") as other:
        for front in (client, other):
            told = []
            front.segment_volume(b"V", classes=["liver", "kidney"], supports="abdomen", progress=told.append)
            assert [(each.stage, each.done, each.slice) for each in told[:4]] == [
                ("locate", 0, None),
                ("locate", 1, None),
                ("locate", 2, None),
                ("segment", 1, 0),
            ]
            with pytest.raises(MedserveError, match="the support set says where to look") as caught:
                front.segment_volume(b"V", classes=["liver"], supports="abdomen", boxes=[BOX])
            assert (caught.value.code, caught.value.param) == ("invalid", "classes")
            with pytest.raises(MedserveError, match="needs the names of the structures"):
                front.segment_volume(b"V", supports="abdomen")
    asked = [request.task.objects for request in served.brain.seen]
    assert [(each.names, each.supports) for each in asked] == [(("liver", "kidney"), "abdomen")] * 2


def test_a_body_over_the_limit_of_volumes_is_refused(served):
    with http(served) as client:
        fits = client.post("/v1/volumes/segment", files=[("volume", bytes(2_000_000))], data={"boxes": "1,2,1,20,30,3"})
        assert fits.status_code == 200
        large = client.post("/v1/volumes/segment", files=[("volume", bytes(3_000_001))], data={"boxes": "1,2,1,20,30,3"})
    assert large.json()["error"]["code"] == "too_large"


def test_a_series_of_many_files_is_taken(served):
    files = [("volume", b"%d" % n) for n in range(400)]
    with http(served) as client:
        response = client.post("/v1/volumes/segment", files=files, data={"boxes": "1,2,1,20,30,3"})
    assert lines(response)[-1]["event"] == "done"
    assert len(served.brain.seen[0].task.volume.files) == 400


def test_a_job_that_looks_for_its_structures_says_how_far_it_is_and_is_cancelled_there(served, monkeypatch):
    monkeypatch.setattr(fakes, "SERVED", (replace(fakes.SERVED[0], prompts=(dispatch.CLASSES,)),))
    served.brain.volume_step_s = 0.1

    def stop(progress):
        assert progress.stage == "locate"
        raise KeyboardInterrupt

    asked = {"volume": "Vg==", "classes": ["liver"], "supports": "abdomen"}
    with http(served) as client:
        events = lines(client.post("/v1/volumes/segment", json=asked))
        assert [each["event"] for each in events] == ["accepted", *["locating"] * 3, *["progress"] * 6, "done"]
        assert events[1] == {"seq": 1, "event": "locating", "done": 0, "total": 2}
    for number, made in enumerate((Client(served.url, token="token-1"), GrpcClient(served.address, token="token-1")), start=1):
        with made as client, pytest.raises(KeyboardInterrupt):
            client.segment_volume(b"V", classes=["liver"], supports="abdomen", progress=stop)
        assert served.brain.cancelled == number
