import asyncio
import json
import threading
import time
from base64 import b64decode, b64encode

import httpx
import numpy as np
import pytest

from serving.domain.image import LinearWindow, PercentileWindow, RangeWindow, RawLayout
from serving.domain.request import Classify, Embed, Encode, MaskFormat, Priority, Segment
from serving.edge.desk import OFF_LOOP_BYTES, off_loop
from serving.edge.http import build_app
from serving.errors import Fault, Kind
from serving.settings import AuthSettings, Settings
from tests.unit.edge.fakes import FakeBrain, Notes

PNG = {"content-type": "image/png"}


class Front:
    def __init__(self, settings: Settings | None = None) -> None:
        self.brain, self.notes = FakeBrain(), Notes()
        app = build_app(self.brain, settings or Settings(), observer=self.notes, metrics=lambda: b"up 1\n")
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def post(self, route, **said):
        return await self.client.post(f"/v1/{route}", **said)

    @property
    def task(self):
        return self.brain.seen[-1].task


@pytest.fixture
def front():
    return Front()


async def test_the_three_ways_to_send_an_image_ask_for_the_same(front):
    box = [1, 2, 30, 40]
    await front.post("segment", json={"image": {"data": "aGVsbG8=", "media_type": "image/png"}, "boxes": [box]})
    as_json = front.task
    await front.post("segment", files={"image": ("x", b"hello", "image/png")}, data={"request": json.dumps({"boxes": [box]})})
    assert front.task == as_json
    await front.post("segment", files={"image": ("x", b"hello", "image/png")}, data={"boxes": "1,2,30,40"})
    assert front.task == as_json
    await front.post("segment", content=b"hello", headers=PNG, params={"boxes": "1,2,30,40"})
    assert front.task == as_json


async def test_everything_said_of_an_image_arrives(front):
    image = {"data": "aGVsbG8=", "raw": {"dtype": "int16", "shape": [2, 3]}, "index": 4, "axis": 0}
    for window, expected in (
        ({"center": 40, "width": 400}, LinearWindow(40, 400)),
        ({"low": 0.5, "high": 99.5}, PercentileWindow(0.5, 99.5)),
        ({"low": 1, "high": 99, "nonzero": False}, PercentileWindow(1, 99, False)),
        ({"minimum": -5}, RangeWindow(-5)),
    ):
        await front.post("images", json={"image": {**image, "window": window}})
        assert isinstance(front.task, Encode)
        assert front.task.image.view.window == expected
    assert (front.task.image.raw, front.task.image.view.index) == (RawLayout("int16", (2, 3)), 4)
    query = {"dtype": "int16", "shape": "2,3", "index": "4", "axis": "0", "window": '{"minimum":-5}'}
    as_json = front.task.image
    await front.post("images", content=b"hello", headers={"content-type": "application/octet-stream"}, params=query)
    assert front.task.image.content_key() == as_json.content_key()


async def test_prompts(front):
    logits = (np.arange(256 * 256) % 1000).astype("<f2").reshape(256, 256)
    image = {"data": "aGVsbG8="}
    body = {"image": image, "boxes": [[0, 0, 4, 4]], "points": [[1, 2], [3, 4, 0]], "multimask": True, "output": "packed"}
    response = await front.post("segment", json={**body, "return_logits": True})
    task = front.task
    assert isinstance(task, Segment)
    (only,) = task.objects
    assert (only.box.x1, [p.positive for p in only.points]) == (4, [True, False])
    assert (task.multimask, task.output, task.return_logits) == (True, MaskFormat.PACKED, True)
    assert len(response.json()["masks"]) == 3
    assert len(b64decode(response.json()["masks"][0]["logits"])) == 256 * 256 * 2
    for data in (logits.tobytes(), logits.astype("<f4").tobytes()):
        said = {"mask": b64encode(data).decode()}
        await front.post("segment", json={"image": image, "objects": [said, {"box": [0, 0, 1, 1]}]})
        np.testing.assert_array_equal(front.task.objects[0].logits.values, logits.astype(np.float32))
        assert front.task.objects[1].box is not None


@pytest.mark.parametrize(
    ("output", "field"), [("rle", "counts"), ("png", "png"), ("polygon", "polygons"), ("packed", "packed")]
)
async def test_every_mask_format(front, output, field):
    response = await front.post("segment", json={"image": "aGVsbG8=", "boxes": [[1, 2, 9, 9]], "output": output})
    (mask,) = response.json()["masks"]
    assert mask[field]
    assert (mask["size"], mask["format"], mask["object"]) == ([48, 64], output, 0)
    assert set(mask) == {"object", "score", "area_px", "box", "size", "format", field}


async def test_an_answer_says_who_and_how_long(front):
    response = await front.post(
        "segment", json={"image": "aGVsbG8=", "boxes": [[1, 2, 9, 9]]}, headers={"x-request-id": "me-1"}
    )
    body = response.json()
    assert (body["model"]["name"], body["model"]["demonstration"], body["features"]) == ("sam", False, "miss")
    assert body["stages_ms"] == {"decode": 1.0, "encode": 2.0}
    assert body["frame"]["spacing_mm"] == [0.5, 0.25]
    assert (response.headers["x-request-id"], response.headers["x-features"]) == ("me-1", "miss")
    named = [part.split(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert named == ["decode", "encode", "serialise", "total"]
    await asyncio.sleep(0)
    assert front.notes.requests == [("segment", "adaptive", "sam", "ok", "interactive")]
    assert [(pool, model, set(stages)) for pool, model, stages in front.notes.stages] == [("adaptive", "sam", {"serialise"})]


async def test_an_answer_goes_out_before_it_is_counted():
    order = []

    class Counting(Notes):
        def observe_request(self, *said):
            order.append("counted")

    app = build_app(FakeBrain(), Settings(), observer=Counting(), metrics=bytes)

    async def watched(scope, receive, send):
        async def sending(message):
            order.append(message["type"])
            await send(message)

        await app(scope, receive, sending)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(watched), base_url="http://test") as client:
        assert (await client.post("/v1/embed", json={"text": "a"})).status_code == 200
        await asyncio.sleep(0)
    assert order == ["http.response.start", "http.response.body", "counted"]


@pytest.mark.parametrize("given", ["", "x" * 129, "ü", "a\tb"])
async def test_a_request_id_that_is_unfit_is_replaced(front, given):
    response = await front.client.get("/v1/models", headers={"x-request-id": given.encode()})
    assert response.headers["x-request-id"] != given
    assert len(response.headers["x-request-id"]) == 32


async def test_handles(front):
    made = (await front.post("images", content=b"hello", headers=PNG)).json()
    assert made["expires_in_s"] == 60
    path = f"/v1/images/{made['image_id']}"
    assert (await front.client.get(path)).json()["image_id"] == made["image_id"]
    prompt = {"image_id": made["image_id"], "boxes": [[0, 0, 2, 2]]}
    assert (await front.post("segment", json=prompt)).status_code == 200
    assert (await front.client.delete(path)).status_code == 200
    for response in (await front.client.get(path), await front.post("segment", json=prompt)):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "send_image_again")


async def test_classify(front):
    files = [("images", ("a", b"one", "image/png")), ("images", ("b", b"two", "image/png"))]
    response = await front.post("classify", files=files, data={"labels": ["edema", "nodule, large"], "templates": "a {}"})
    assert response.json()["labels"] == ["edema", "nodule, large"]
    assert response.json()["scores"] == [[0.0, pytest.approx(1 / 3)], [pytest.approx(2 / 3), 1.0]]
    assert isinstance(front.task, Classify)
    assert (front.task.labels.templates, [i.data for i in front.task.images]) == (("a {}",), [b"one", b"two"])


async def test_embed(front):
    response = await front.post("embed", json={"texts": ["a", "b"]})
    rows = [np.frombuffer(b64decode(row), "<f4") for row in response.json()["embeddings"]]
    np.testing.assert_array_equal(rows, np.eye(8)[:2])
    response = await front.post("embed", json={"text": "a", "encoding": "float"})
    assert response.json()["embeddings"] == [[1.0] + [0.0] * 7]
    assert response.json()["dimensions"] == 8


@pytest.mark.parametrize(
    ("body", "task", "name"),
    [
        ({"image": "aGVsbG8=", "prompts": [{"box": [0, 0, 4, 4]}, {"points": [[1, 1, 1]]}]}, Segment, "segment"),
        ({"image": "aGVsbG8=", "prompts": [{"labels": ["a"], "templates": ["{}"]}]}, Classify, "classify"),
        ({"prompts": [{"text": "a"}, {"text": "b"}]}, Embed, "embed"),
        ({"text": "a"}, Embed, "embed"),
        ({"image": "aGVsbG8=", "output": "embedding"}, Embed, "embed"),
    ],
)
async def test_the_front_door_chooses_by_prompt(front, body, task, name):
    response = await front.post("infer", json=body)
    assert (response.status_code, response.json()["task"], type(front.task)) == (200, name, task)


async def test_priority_deadline_and_tenant_reach_the_brain():
    front = Front(Settings(auth=AuthSettings(tokens={"ward": "secret"})))
    headers = {"x-priority": "bulk", "x-deadline-ms": "2000", "authorization": "Bearer secret"}
    await front.post("embed", json={"text": "a"}, headers=headers)
    seen = front.brain.seen[0]
    assert (seen.priority, seen.tenant) == (Priority.BULK, "ward")
    assert 1.5 < seen.deadline.remaining_s() <= 2
    await front.post("embed", json={"text": "a"}, headers={**headers, "x-deadline-ms": "9e9"})
    assert front.brain.seen[1].deadline.remaining_s() <= 300


@pytest.mark.parametrize("given", [None, "secret", "Bearer ", "Bearer wrong", "Basic secret"])
async def test_without_the_token(given):
    front = Front(Settings(auth=AuthSettings(tokens={"ward": "secret"})))
    headers = {"authorization": given} if given else {}
    asked = await front.post("embed", json={"text": "a"}, headers=headers)
    for response in (asked, await front.client.get("/v1/models", headers=headers)):
        assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"
    assert front.brain.seen == []
    assert (await front.client.get("/readyz")).status_code == 200


MORE_TIME = "allow more time (X-Deadline-Ms, or the gRPC call's own): 30 s unless said, 300 at most"


async def test_the_deadline_bounds_the_brain(front):
    front.brain.delay_s = 10
    start = time.monotonic()
    response = await front.post("embed", json={"text": "a"}, headers={"x-deadline-ms": "50"})
    assert time.monotonic() - start < 5
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert response.json()["error"]["message"] == f"the deadline passed before the answer was ready: {MORE_TIME}"
    assert front.brain.cancelled == 1
    await asyncio.sleep(0)
    assert front.notes.requests == [("embed", "", "", "deadline", "interactive")]


async def test_a_deadline_that_passed_in_the_pool_says_what_to_allow(front):
    front.brain.trouble = Fault(Kind.DEADLINE, "the deadline passed at engine sam_vit_h_image_encoder", param="deadline")
    error = (await front.post("embed", json={"text": "a"})).json()["error"]
    assert error["message"] == f"the deadline passed at engine sam_vit_h_image_encoder: {MORE_TIME}"


async def test_a_full_pool_says_when_to_come_back(front):
    front.brain.trouble = Fault(Kind.POOL_FULL, "the pool is full", retry_after_s=1.2)
    response = await front.post("embed", json={"text": "a"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


async def test_a_surprise_is_told_without_its_trace(front, caplog):
    front.brain.trouble = RuntimeError("/secret/path patient Doe")
    response = await front.post("embed", json={"text": "a"}, headers={"x-request-id": "find-me"})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert "find-me" in caplog.text
    assert "/secret/path" in caplog.text


async def test_a_brain_that_times_out_on_its_own_is_no_deadline(front):
    front.brain.trouble = TimeoutError()
    assert (await front.post("embed", json={"text": "a"})).status_code == 500


async def test_a_client_that_leaves_takes_its_work_along(front):
    front.brain.delay_s = 10
    sent = [{"type": "http.request", "body": b'{"text":"a"}', "more_body": False}]
    replies = []

    async def receive():
        if sent:
            return sent.pop()
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def send(message):
        replies.append(message)

    app = front.client._transport.app
    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/embed",
        "headers": headers,
        "query_string": b"",
        "http_version": "1.1",
    }
    await asyncio.wait_for(app(scope, receive, send), 2)
    assert front.brain.cancelled == 1
    assert front.notes.requests == [("embed", "", "", "client_error", "interactive")]


async def test_readiness(front):
    assert (await front.client.get("/livez")).json() == {"live": True}
    front.brain.ready = False
    response = await front.client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"ready": False, "parts": {"adaptive": "warming up"}})


async def test_models(front):
    first, second = (await front.client.get("/v1/models")).json()["models"]
    assert (first["name"], first["prompts"], first["limits"]) == ("sam", ["box", "point", "mask", "volume"], {"objects": 256})
    assert (second["demonstration"], second["licence"]) == (True, "Apache-2.0")


async def test_metrics_are_passed_on(front):
    response = await front.client.get("/metrics")
    assert (response.text, response.headers["content-type"]) == ("up 1\n", "text/plain; version=0.0.4; charset=utf-8")


async def test_pages_need_no_other_host(front):
    for path in ("/", "/docs"):
        text = (await front.client.get(path)).text
        assert "<html" in text
        assert "http://" not in text
        assert "https://" not in text


async def test_openapi_has_every_route_and_resolves(front):
    document = (await front.client.get("/openapi.json")).json()
    expected = {"infer", "segment", "images", "images/{image_id}", "classify", "embed", "models"}
    expected |= {"volumes/segment", "volumes/{job}", "volumes/{job}/result"}
    assert {f"/v1/{name}" for name in expected} | {"/livez", "/readyz", "/metrics"} == set(document["paths"])
    schemas = document["components"]["schemas"]

    def refs(node):
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from refs(value)
        elif isinstance(node, list):
            for value in node:
                yield from refs(value)

    found = set(refs(document))
    assert len(found) > 20
    assert {ref.removeprefix("#/components/schemas/") for ref in found} <= set(schemas)
    content = document["paths"]["/v1/segment"]["post"]["requestBody"]["content"]
    assert {"application/json", "multipart/form-data", "image/*"} <= set(content)


async def test_answers_are_as_documented(front):
    from serving.edge import schemas, wire

    for route, body, model in (
        ("segment", {"image": "aGVsbG8=", "boxes": [[1, 2, 9, 9]], "return_logits": True}, schemas.SegmentAnswer),
        ("images", {"image": "aGVsbG8="}, schemas.ImageAnswer),
        ("classify", {"image": "aGVsbG8=", "labels": ["a"]}, schemas.ClassifyAnswer),
        ("embed", {"text": "a"}, schemas.EmbedAnswer),
        ("infer", {"text": "a"}, schemas.EmbedInferAnswer),
    ):
        model.model_validate((await front.post(route, json=body)).json())
    schemas.ModelsAnswer.model_validate((await front.client.get("/v1/models")).json())
    for known, body in (
        (wire.SEGMENT_FIELDS, schemas.SegmentBody),
        (wire.ENCODE_FIELDS, schemas.EncodeBody),
        (wire.CLASSIFY_FIELDS, schemas.ClassifyBody),
        (wire.EMBED_FIELDS, schemas.EmbedBody),
        (wire.INFER_FIELDS, schemas.InferBody),
    ):
        assert set(known) == set(body.model_fields)


async def test_a_large_body_arrives_whole(front):
    data = bytes(range(256)) * 32_000
    response = await front.post("segment", files={"image": ("x", data, "image/png")}, data={"boxes": "0,0,4,4"})
    assert response.status_code == 200
    assert front.task.image.data == data


async def test_large_work_leaves_the_event_loop():
    here = threading.get_ident()
    assert await off_loop(OFF_LOOP_BYTES, threading.get_ident) == here
    assert await off_loop(OFF_LOOP_BYTES + 1, threading.get_ident) != here
