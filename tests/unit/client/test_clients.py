"""The four clients against both fronts on real sockets: the same questions, the same answers."""

from contextlib import asynccontextmanager

import grpc
import httpx
import numpy as np
import pytest
from awaited import CLIENTS, Awaited

from serving.client import GrpcClient, MedserveError, grpc_wire, http_wire
from serving.domain.image import PercentileWindow, RawLayout
from serving.domain.request import Priority
from serving.errors import Fault, Kind
from tests.unit.client.answering import CLOSED, RESET, answering
from tests.unit.edge.fakes import truth

BOX = (3, 5, 40, 30)


@asynccontextmanager
async def opened(served, kind, **said):
    client = CLIENTS[kind](served.address if "grpc" in kind else served.url, timeout_s=5, **said)
    try:
        yield Awaited(client)
    finally:
        await Awaited(client).close()


@pytest.fixture(params=CLIENTS)
async def client(request, served):
    async with opened(served, request.param) as found:
        yield found


@pytest.mark.parametrize("output", ["rle", "packed"])
async def test_segment(client, output):
    found = await client.segment(b"hello", boxes=[BOX, (0, 0, 2, 2)], output=output, return_logits=True, request_id="me")
    np.testing.assert_array_equal(found.masks[0].array, truth(BOX))
    assert (found.masks[0].score, found.masks[0].box, found.masks[0].size) == (0.5, (1, 2, 3, 4), (48, 64))
    assert found.masks[0].area_px == truth(BOX).sum()
    np.testing.assert_array_equal(found.masks[1].logits, np.ones((256, 256), np.float16))
    assert (found.frame.width, found.frame.height, found.frame.spacing_mm, found.frame.orientation) == (
        64,
        48,
        (0.5, 0.25),
        None,
    )
    assert (found.model.name, found.model.demonstration, found.features, found.request_id) == ("sam", False, "miss", "me")
    assert found.stages_ms == {"decode": 1, "encode": 2}


async def test_polygons(client):
    found = await client.segment(b"hello", boxes=[BOX], output="polygon")
    np.testing.assert_array_equal(found.masks[0].polygons[0], np.array([1, 1, 5, 1, 5, 5], np.float32))
    with pytest.raises(ValueError, match="polygons"):
        _ = found.masks[0].array


async def test_what_is_said_arrives(client, served):
    pixels = np.arange(12, dtype=np.int16).reshape(3, 4)
    logits = np.full((256, 256), 2.5, np.float32)
    window = {"low": 0.5, "high": 99.5}
    said = {"points": [(1, 2), (3, 4, 0)], "mask": logits, "boxes": [(0, 0, 4, 4)]}
    await client.segment(pixels, **said, objects=[{"points": [(5, 6, 1)]}], index=3, axis=1, window=window, priority="bulk",
                         deadline_s=3.0, multimask=True)  # fmt: skip
    (seen,) = served.brain.seen
    image = seen.task.image
    assert (image.raw, image.view.index, image.view.axis) == (RawLayout("int16", (3, 4)), 3, 1)
    assert image.view.window == PercentileWindow(0.5, 99.5)
    np.testing.assert_array_equal(np.frombuffer(image.data, "<i2").reshape(3, 4), pixels)
    first, second = seen.task.objects
    assert ([p.positive for p in first.points], first.box.x1) == ([True, False], 4)
    np.testing.assert_array_equal(first.logits.values, logits)
    assert second.points[0].x == 5
    assert (seen.priority, seen.task.multimask) == (Priority.BULK, True)
    assert 2 < seen.deadline.remaining_s() < 3.5  # gRPC rounds a timeout up


async def test_a_file(client, served, tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(b"DICM")
    await client.classify([path, str(path)], ["a"])
    assert [(i.data, i.media_type) for i in served.brain.seen[0].task.images] == [(b"DICM", "application/dicom")] * 2


async def test_handles(client):
    handle = await client.encode_image(b"hello")
    assert handle.expires_in_s == 60
    found = await client.segment(handle, boxes=[BOX])
    assert found.image_id == handle.image_id == (await client.image(handle.image_id)).image_id
    assert (await client.segment(image_id=handle.image_id, boxes=[BOX])).image_id == handle.image_id
    await client.forget_image(handle.image_id)
    with pytest.raises(MedserveError) as caught:
        await client.segment(handle, boxes=[BOX])
    assert (caught.value.code, caught.value.param, caught.value.retryable) == ("send_image_again", "image_id", False)
    assert caught.value.status in (404, "NOT_FOUND")


async def test_classify_embed_models_ready(client, served):
    found = await client.classify([b"a", b"b"], ["x", "y"], templates=["a {}"], model="clip")
    np.testing.assert_allclose(found.scores, [[0, 1 / 3], [2 / 3, 1]], rtol=1e-6)
    assert (found.labels, found.scoring, found.model.demonstration) == (("x", "y"), "softmax", True)
    np.testing.assert_array_equal((await client.embed(texts=["a", "b"])).vectors, np.eye(8)[:2])
    assert (await client.embed(b"a")).vectors.shape == (1, 8)
    names = [(m.name, m.prompts, m.licence, m.limits) for m in await client.models()]
    assert names[0] == ("sam", ("box", "point", "mask", "volume"), "Apache-2.0", {"objects": 256})
    (gate,) = (await client.models())[0].gates.values()
    assert (gate["precision"], gate["mean"], gate["dropped"]) == ("bf16-late", 0.995, {"bf16": {"why": "its answers differ"}})
    assert await client.ready() is True
    served.brain.ready = False
    assert await client.ready() is False


async def test_errors(client, served):
    with pytest.raises(MedserveError) as caught:
        await client.segment(b"hello", boxes=[(9, 9, 1, 1)], request_id="me")
    error = caught.value
    assert (error.code, error.param, error.request_id, error.retryable) == ("invalid", "boxes", "me", False)
    assert str(error) == "invalid: a box needs x0 < x1 and y0 < y1: [x0, y0, x1, y1] in pixels"
    served.brain.trouble = Fault(Kind.POOL_FULL, "full", retry_after_s=2)
    with pytest.raises(MedserveError) as caught:
        await client.embed(texts=["a"])
    assert (caught.value.retry_after, caught.value.retryable) == (2, True)
    with pytest.raises(MedserveError) as caught:
        await client.segment(b"x", boxes=[BOX], output="svg")
    assert (caught.value.code, caught.value.param) == ("invalid", "output")


@pytest.mark.parametrize("kind", CLIENTS)
async def test_retries_are_for_what_may_go_well(served, kind, monkeypatch):
    async with opened(served, kind, retries=2) as client:
        monkeypatch.setattr(MedserveError, "wait_s", lambda self, attempt: 0.0)
        served.brain.trouble = Fault(Kind.ENGINE_UNAVAILABLE, "away")
        with pytest.raises(MedserveError):
            await client.embed(texts=["a"])
        assert len(served.brain.seen) == 3
        served.brain.trouble = Fault(Kind.INVALID, "wrong")
        with pytest.raises(MedserveError):
            await client.embed(texts=["a"])
        assert len(served.brain.seen) == 4


@pytest.mark.parametrize("kind", CLIENTS)
async def test_nobody_there(kind):
    address = "127.0.0.1:1" if "grpc" in kind else "http://127.0.0.1:1"
    client = CLIENTS[kind](address, timeout_s=5)
    with pytest.raises(MedserveError) as caught:
        await Awaited(client).embed(texts=["a"])
    assert (caught.value.code, caught.value.retryable) == ("unreachable", True)
    assert await Awaited(client).ready() is False
    await Awaited(client).close()


async def test_wrong_use_is_told_before_anything_is_sent(client, served):
    for said in ({}, {"image_id": "x"}):
        with pytest.raises(ValueError, match="either image or image_id"):
            await client.segment(b"x" if said else None, **said)
    with pytest.raises(ValueError, match="objects"):
        await client.segment(b"x", boxes=[BOX, BOX], points=[(1, 2)])
    assert served.brain.seen == []


def test_a_session(served):
    with GrpcClient(served.address) as client, client.session(deadline_s=5) as session:
        with pytest.raises(MedserveError) as caught:
            session.segment(boxes=[BOX])
        assert caught.value.code == "invalid"
        handle = session.show(b"hello")
        for box in (BOX, (0, 0, 3, 3)):
            found = session.segment(boxes=[box])
            np.testing.assert_array_equal(found.masks[0].array, truth(box))
            assert found.image_id == handle.image_id


@pytest.mark.parametrize("body", ["Service Unavailable", "", "<html></html>", '{"error": "no server"}', "[]", "null"])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_proxy_that_has_nobody_to_ask_is_worth_another_try(status, body):
    with pytest.raises(MedserveError) as caught:
        http_wire.checked(httpx.Response(status, text=body, headers={"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}))
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("unreachable", status, True)


@pytest.mark.parametrize(("status", "body"), [(200, "<html></html>"), (200, "[]"), (404, '{"error": "no route"}'), (404, "")])
def test_an_answer_of_somebody_else_is_not_tried_again(status, body):
    with pytest.raises(MedserveError) as caught:
        http_wire.checked(httpx.Response(status, text=body))
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("unreadable", status, False)


@pytest.mark.parametrize("kind", ["grpc", "grpc async"])
@pytest.mark.parametrize(
    ("given", "code", "status"),
    [
        *((http, "unreachable", http) for http in (500, 502, 503, 504)),
        (404, "unreadable", 404),
        (CLOSED, "unreachable", 0),
        (RESET, "unreachable", 0),
    ],
)
async def test_grpc_meets_what_is_not_grpc(kind, given, code, status):
    with answering(given) as address:
        client = CLIENTS[kind](address, timeout_s=30)
        for call in (Awaited(client).embed(texts=["a"]), Awaited(client).segment_volume(b"x", boxes=[[0, 0, 0, 1, 1, 1]])):
            with pytest.raises(MedserveError) as caught:
                await call
            error = caught.value
            assert (error.code, error.status, error.retryable) == (code, status, code == "unreachable")
            assert len(str(error).splitlines()) == 1
            assert "http2" not in str(error)
        await Awaited(client).close()


@pytest.mark.parametrize(
    "details", ["Stream removed (Data frame with END_STREAM flag received)", "Received RST_STREAM with error code 2"]
)
def test_a_stream_whose_end_is_not_grpc_s_is_worth_another_try(details):
    """What gRPC makes of HAProxy's page depends on how much of it is there at once."""
    ended = grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    error = grpc_wire.error(ended, "here:9000")
    assert (error.code, error.message) == ("unreachable", "no answer from here:9000: is the server up?")


def test_a_session_meets_what_is_not_grpc():
    with answering(503) as address, GrpcClient(address) as client, client.session(deadline_s=30) as session:
        with pytest.raises(MedserveError) as caught:
            session.show(b"hello")
        assert (caught.value.code, caught.value.retryable) == ("unreachable", True)
