"""The line that each call leaves in the log, over both fronts, and what a scrape asks before it answers."""

import logging
import time

import grpc
import httpx
import pytest

from serving.edge.proto import inference_pb2 as pb
from serving.edge.proto.inference_pb2_grpc import InferenceStub

BOX = pb.ObjectPrompt(box=pb.Box(x0=1, y0=1, x1=9, y1=9))
PNG = {"content-type": "image/png"}
WAIT_S = 30
"""A line is written when its answer is on its way: a client that has it may be the quicker one."""


def written(caplog, number, *idents):
    """The fields of so many lines of these requests, or of as many as there are when the time is over."""
    until = time.monotonic() + WAIT_S
    while True:
        told = [each.fields for each in caplog.records if each.getMessage() == "request"]
        found = [each for each in told if each["request_id"] in idents]
        if len(found) >= number or time.monotonic() > until:
            return found
        time.sleep(0.01)


@pytest.fixture
def lines(caplog):
    """{request id: its line} of the two requests `good` and `bad`."""
    caplog.set_level(logging.INFO, "serving")
    return lambda: {each["request_id"]: each for each in written(caplog, 2, "good", "bad")}


def test_over_http(served, lines):
    url = f"{served.url}/v1/segment?boxes=1,1,9,9"
    httpx.post(url, content=b"hello", headers={**PNG, "x-request-id": "good"})
    httpx.post(f"{url}&model=nobody", content=b"hello", headers={**PNG, "x-request-id": "bad", "x-priority": "bulk"})
    found = lines()
    good, bad = found["good"], found["bad"]
    assert (good["front"], good["route"], good["status"], good["code"]) == ("http", "segment", 200, "ok")
    assert (good["pool"], good["model"], good["features"], good["priority"]) == ("adaptive", "sam", "miss", "interactive")
    assert good["stages_ms"]["encode"] == 2.0
    assert good["total_ms"] > 0
    assert (bad["status"], bad["code"], bad["pool"], bad["priority"]) == (404, "unknown_model", "", "bulk")


def test_over_grpc(served, lines):
    source = pb.ImageSource(image=pb.Image(data=b"hello"))
    with grpc.insecure_channel(served.address) as channel:
        stub = InferenceStub(channel)
        stub.Segment(pb.SegmentRequest(image=source, objects=[BOX]), metadata=(("x-request-id", "good"),))
        with pytest.raises(grpc.RpcError):
            stub.Segment(pb.SegmentRequest(image=source, objects=[BOX], model="x"), metadata=(("x-request-id", "bad"),))
    found = lines()
    assert (found["good"]["front"], found["good"]["status"]) == ("grpc", "OK")
    assert (found["bad"]["status"], found["bad"]["code"]) == ("NOT_FOUND", "unknown_model")


def test_each_message_of_a_session_has_a_line(served, caplog):
    caplog.set_level(logging.INFO, "serving")
    asked = [
        pb.SegmentSessionRequest(id="1", image=pb.EncodeImageRequest(image=pb.Image(data=b"hello"))),
        pb.SegmentSessionRequest(id="2", prompt=pb.SessionPrompt(objects=[BOX])),
    ]
    with grpc.insecure_channel(served.address) as channel:
        assert len(list(InferenceStub(channel).SegmentSession(iter(asked), metadata=(("x-request-id", "s"),)))) == 2
    assert [each["route"] for each in written(caplog, 2, "s")] == ["images", "segment"]


def test_a_quiet_level_builds_no_line(served, caplog):
    caplog.set_level(logging.WARNING, "serving")
    httpx.post(f"{served.url}/v1/segment?boxes=1,1,9,9", content=b"hello", headers=PNG)
    assert not caplog.records


def test_a_scrape_notes_whether_each_pool_is_ready(served):
    served.notes.ready.clear()
    httpx.get(f"{served.url}/metrics")
    assert served.notes.ready == {"adaptive": True}
    served.brain.ready = False
    httpx.get(f"{served.url}/readyz")
    assert served.notes.ready == {"adaptive": False}
