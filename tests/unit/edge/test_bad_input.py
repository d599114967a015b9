"""Every bad request that an edge can tell, over both fronts: the same code and field, the right status, within a second."""

import json
import time

import grpc
import httpx
import pytest

from serving.edge.proto import inference_pb2 as pb
from serving.errors import Kind

IMAGE = {"data": "aGVsbG8="}
PB_IMAGE = pb.ImageSource(image=pb.Image(data=b"hello"))
NAN, INF = float("nan"), float("inf")


def box(*numbers):
    return pb.ObjectPrompt(box=pb.Box(x0=numbers[0], y0=numbers[1], x1=numbers[2], y1=numbers[3]))


def segment(*boxes, **more):
    """(route, JSON, RPC, message) of a Segment with these boxes."""
    json_more = {"output": more["output"][0]} if "output" in more else {}
    pb_more = {"output": more["output"][1]} if "output" in more else {}
    body = {"image": IMAGE, "boxes": [list(b) for b in boxes], **json_more}
    return "segment", body, "Segment", pb.SegmentRequest(image=PB_IMAGE, objects=[box(*b) for b in boxes], **pb_more)


def classify(labels, **said):
    body = {"image": IMAGE, "labels": labels}
    return "classify", body, "Classify", pb.ClassifyRequest(images=[PB_IMAGE], labels=pb.Labels(names=labels))


CASES = {
    "a reversed box": (segment((9, 9, 1, 1)), "invalid", "boxes"),
    "a box without area": (segment((5, 5, 5, 5)), "invalid", "boxes"),
    "a negative box": (segment((-1, 0, 4, 4)), "invalid", "boxes"),
    "a box outside the image": (segment((0, 0, 4000, 4000)), "invalid", "boxes"),
    "10,000 prompts": (segment(*[(0, 0, 4, 4)] * 10_000), "invalid", None),
    "an unknown output": (segment((0, 0, 4, 4), output=("svg", 99)), "invalid", "output"),
    "no prompt": (segment(), "invalid", "boxes"),
    "no image": (
        ("segment", {"boxes": [[0, 0, 4, 4]]}, "Segment", pb.SegmentRequest(objects=[box(0, 0, 4, 4)])), "invalid", "image",
    ),
    "an empty image": (
        ("segment", {"image": {"data": ""}, "boxes": [[0, 0, 4, 4]]}, "Segment",
         pb.SegmentRequest(image=pb.ImageSource(image=pb.Image()), objects=[box(0, 0, 4, 4)])), "malformed", "image",
    ),
    "logits of a wrong size": (
        ("segment", {"image": IMAGE, "mask": "aGVsbG8="}, "Segment",
         pb.SegmentRequest(image=PB_IMAGE, objects=[pb.ObjectPrompt(mask=b"hello")])), "invalid", None,
    ),
    "65 points": (
        ("segment", {"image": IMAGE, "points": [[1, 1, 1]] * 65}, "Segment",
         pb.SegmentRequest(image=PB_IMAGE, objects=[pb.ObjectPrompt(points=[pb.Point(x=1, y=1)] * 65)])), "invalid", None,
    ),
    "empty labels": (classify([]), "invalid", "labels"),
    "a label of 10,000 characters": (classify(["x" * 10_000]), "invalid", "labels"),
    "a blank label": (classify([" "]), "invalid", "labels"),
    "1,001 labels": (classify([str(n) for n in range(1001)]), "invalid", "labels"),
    "an unknown model": (
        ("segment", {"image": IMAGE, "boxes": [[0, 0, 4, 4]], "model": "nobody"}, "Segment",
         pb.SegmentRequest(image=PB_IMAGE, objects=[box(0, 0, 4, 4)], model="nobody")), "unknown_model", "model",
    ),
    "an unknown handle": (
        ("segment", {"image_id": "x", "boxes": [[0, 0, 4, 4]]}, "Segment",
         pb.SegmentRequest(image=pb.ImageSource(image_id="x"), objects=[box(0, 0, 4, 4)])), "send_image_again", "image_id",
    ),
    "text to a visual model": (
        ("embed", {"texts": ["liver"], "model": "sam"}, "Embed", pb.EmbedRequest(texts=["liver"], model="sam")),
        "invalid", "model",
    ),
    "neither image nor text": (("embed", {}, "Embed", pb.EmbedRequest()), "invalid", "texts"),
    "33 images": (
        ("classify", {"images": [IMAGE] * 33, "labels": ["a"]}, "Classify",
         pb.ClassifyRequest(images=[PB_IMAGE] * 33, labels=pb.Labels(names=["a"]))), "invalid", "images",
    ),
    "a template without a hole": (
        ("classify", {"image": IMAGE, "labels": ["a"], "templates": ["photo"]}, "Classify",
         pb.ClassifyRequest(images=[PB_IMAGE], labels=pb.Labels(names=["a"], templates=["photo"]))), "invalid", "templates",
    ),
    "a window without width": (
        ("images", {"image": {**IMAGE, "window": {"center": 40, "width": 0}}}, "EncodeImage",
         pb.EncodeImageRequest(image=pb.Image(data=b"x", window=pb.Window(linear=pb.Window.Linear(center=40))))),
        "invalid", "window",
    ),
    "an unknown dtype": (
        ("images", {"image": {**IMAGE, "raw": {"dtype": "int64", "shape": [1, 1]}}}, "EncodeImage",
         pb.EncodeImageRequest(image=pb.Image(data=b"x", raw=pb.RawLayout(dtype="int64", shape=[1, 1])))),
        "invalid", "image.dtype",
    ),
    "prompts of two kinds": (
        ("infer", {"image": IMAGE, "prompts": [{"box": [0, 0, 4, 4]}, {"text": "liver"}]}, "Infer",
         pb.InferRequest(images=[PB_IMAGE], prompts=[pb.Prompt(object=box(0, 0, 4, 4)), pb.Prompt(text="liver")])),
        "invalid", "prompts",
    ),
    "text with an image": (
        ("infer", {"image": IMAGE, "prompts": [{"text": "liver"}], "model": "sam"}, "Infer",
         pb.InferRequest(images=[PB_IMAGE], prompts=[pb.Prompt(text="liver")], model="sam")), "invalid", "prompts",
    ),
    "a body over the limit": (
        ("images", {"image": {"data": "A" * 1_200_000}}, "EncodeImage",
         pb.EncodeImageRequest(image=pb.Image(data=bytes(1_200_000)))), "too_large", "body",
    ),
}  # fmt: skip


def row(code):
    return next(kind.row for kind in Kind if kind.row.code == code)


def over_grpc(served, method, message, metadata=(), timeout=5):
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with grpc.insecure_channel(served.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/medserve.v1.Inference/{method}")(data, metadata=metadata, timeout=timeout)
    return caught.value


def assert_error_body(response, code, param=None):
    error = response.json()["error"]
    assert response.status_code == row(code).http
    assert (error["code"], set(error)) == (code, {"code", "message", "param", "request_id"})
    assert error["request_id"] == response.headers["x-request-id"]
    assert "\n" not in error["message"]
    assert "Traceback" not in response.text
    if param:
        assert error["param"] == param
    return error


def assert_error_status(error, code, param=None):
    trailing = dict(error.trailing_metadata())
    assert error.code().name == row(code).grpc
    assert trailing["x-error-code"] == code
    assert "\n" not in error.details()
    if param:
        assert trailing["x-error-param"] == param


@pytest.mark.parametrize("name", CASES)
def test_over_http(served, name):
    (route, body, _, _), code, param = CASES[name]
    start = time.monotonic()
    response = httpx.post(f"{served.url}/v1/{route}", json=body)
    assert time.monotonic() - start < 5
    assert_error_body(response, code, param)


@pytest.mark.parametrize("name", CASES)
def test_over_grpc(served, name):
    (_, _, method, message), code, param = CASES[name]
    start = time.monotonic()
    error = over_grpc(served, method, message)
    assert time.monotonic() - start < 5
    assert_error_status(error, code, param)


def test_both_fronts_say_the_same_words(served):
    for name, ((route, body, method, message), _, _) in CASES.items():
        if name in ("an unknown output", "logits of a wrong size", "65 points", "10,000 prompts", "an empty image"):
            continue  # the wires spell these fields differently
        told = httpx.post(f"{served.url}/v1/{route}", json=body).json()["error"]["message"]
        assert over_grpc(served, method, message).details() == told, name


@pytest.mark.parametrize("numbers", [(NAN, 0, 4, 4), (0, 0, INF, 4)])
def test_numbers_that_are_none(served, numbers):
    error = over_grpc(served, "Segment", pb.SegmentRequest(image=PB_IMAGE, objects=[box(*numbers)]))
    assert_error_status(error, "invalid", "boxes")
    query = {"boxes": ",".join(map(str, numbers))}
    response = httpx.post(f"{served.url}/v1/segment", params=query, content=b"x", headers={"content-type": "image/png"})
    assert_error_body(response, "invalid", "boxes")
    # JSON itself has no NaN.
    text = json.dumps({"image": IMAGE, "boxes": [numbers]})
    response = httpx.post(f"{served.url}/v1/segment", content=text, headers={"content-type": "application/json"})
    assert_error_body(response, "malformed", "body")


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\xff", b"<html>"])
def test_malformed_protobuf(served, data):
    assert_error_status(over_grpc(served, "Segment", data), "malformed", "body")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"{'a': 1}"])
def test_malformed_json(served, text):
    response = httpx.post(f"{served.url}/v1/segment", content=text, headers={"content-type": "application/json"})
    assert_error_body(response, "malformed", "body")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"boxs": []}, "boxs"),
        ({"image": {"data": "not base64!"}}, "image.data"),
        ({"image": {"data": 5}}, "image.data"),
        ({"image": {}}, "image.data"),
        ({"image": [1]}, "image"),
        ({"image": IMAGE, "boxes": {"a": 1}}, "boxes"),
        ({"image": IMAGE, "boxes": [[1, 2, 3]]}, "boxes[0]"),
        ({"image": IMAGE, "boxes": [["a", 2, 3, 4]]}, "boxes[0]"),
        ({"image": IMAGE, "boxes": [[True, 2, 3, 4]]}, "boxes[0]"),
        ({"image": IMAGE, "points": [[1, 2, 7]]}, "points[0]"),
        ({"image": IMAGE, "points": [[1]]}, "points[0]"),
        ({"image": IMAGE, "objects": [{"bbox": [1, 2, 3, 4]}]}, "objects[0].bbox"),
        ({"image": IMAGE, "objects": [{}]}, "objects"),
        ({"image": IMAGE, "boxes": [[1, 2, 3, 4]] * 2, "points": [[1, 2]]}, "objects"),
        ({"image": IMAGE, "image_id": "x", "boxes": [[1, 2, 3, 4]]}, "image"),
        ({"image": IMAGE, "boxes": [[1, 2, 3, 4]], "multimask": "yes"}, "multimask"),
        ({"image": IMAGE, "boxes": [[1, 2, 3, 4]], "model": 5}, "model"),
        ({"image": {**IMAGE, "index": -1}, "boxes": [[1, 2, 3, 4]]}, "image.index"),
        ({"image": {**IMAGE, "index": 1.5}, "boxes": [[1, 2, 3, 4]]}, "image.index"),
        ({"image": {**IMAGE, "axis": 3}, "boxes": [[1, 2, 3, 4]]}, "image.axis"),
        ({"image": {**IMAGE, "window": {"center": 1, "low": 2}}, "boxes": [[1, 2, 3, 4]]}, "image.window"),
        ({"image": {**IMAGE, "window": {"center": 1}}, "boxes": [[1, 2, 3, 4]]}, "image.window.width"),
        ({"image": {**IMAGE, "raw": {"dtype": "uint8", "shape": "x"}}, "boxes": [[1, 2, 3, 4]]}, "image.raw.shape"),
    ],
)
def test_json_of_the_wrong_shape_names_the_field(served, body, param):
    response = httpx.post(f"{served.url}/v1/segment", json=body)
    error = response.json()["error"]
    assert response.status_code in (400, 422)
    assert error["param"] == param


def test_a_prompt_of_no_kind(served):
    response = httpx.post(f"{served.url}/v1/infer", json={"image": IMAGE, "prompts": [{"circle": [1, 2, 3]}]})
    assert_error_body(response, "invalid", "prompts")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "", "application/x-www-form-urlencoded"])
def test_a_wrong_content_type(served, kind):
    response = httpx.post(f"{served.url}/v1/segment", content=b"x", headers={"content-type": kind})
    assert_error_body(response, "unsupported_media", "content-type")


@pytest.mark.parametrize(
    "body",
    [b"", b"--b", b"--b\r\n\r\nx\r\n--b--", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
     b"--b\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nx"],
)  # fmt: skip
def test_malformed_multipart(served, body):
    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert_error_body(httpx.post(f"{served.url}/v1/segment", content=body, headers=kind), "malformed", "body")


def test_multipart_without_a_boundary(served):
    kind = {"content-type": "multipart/form-data"}
    assert_error_body(httpx.post(f"{served.url}/v1/segment", content=b"x", headers=kind), "malformed", "content-type")


def test_a_body_that_hides_its_length_is_counted(served):
    kind = {"content-type": "image/png"}
    response = httpx.post(f"{served.url}/v1/segment", content=(bytes(100_000) for _ in range(20)), headers=kind)
    assert_error_body(response, "too_large", "body")


def test_unknown_routes_and_methods(served):
    assert_error_body(httpx.get(f"{served.url}/v1/nothing"), "not_found", "path")
    assert_error_body(httpx.post(f"{served.url}/"), "method_not_allowed", "method")
    response = httpx.get(f"{served.url}/v1/segment")
    assert_error_body(response, "method_not_allowed", "method")
    assert response.headers["allow"] == "POST"
    assert over_grpc(served, "Nothing", b"").code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("given", ["0", "-5", "0.0"])
def test_an_expired_deadline_costs_nothing(served, given):
    (route, body, method, message), _, _ = CASES["an unknown model"]
    response = httpx.post(f"{served.url}/v1/{route}", json=body, headers={"x-deadline-ms": given})
    assert_error_body(response, "deadline_exceeded", "deadline")
    error = over_grpc(served, method, message, metadata=[("x-deadline-ms", given)])
    assert_error_status(error, "deadline_exceeded", "deadline")
    assert served.brain.seen == []


@pytest.mark.parametrize(
    ("header", "value", "param"),
    [("x-deadline-ms", "soon", "x-deadline-ms"), ("x-deadline-ms", "nan", "deadline"), ("x-priority", "urgent", "x-priority")],
)
def test_headers_that_cannot_be_read(served, header, value, param):
    (route, body, method, message), _, _ = CASES["an unknown model"]
    assert_error_body(httpx.post(f"{served.url}/v1/{route}", json=body, headers={header: value}), "invalid", param)
    assert_error_status(over_grpc(served, method, message, metadata=[(header, value)]), "invalid", param)
