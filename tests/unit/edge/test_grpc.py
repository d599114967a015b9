import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from serving.domain.image import LinearWindow, PercentileWindow, RangeWindow, RawLayout
from serving.domain.request import Priority
from serving.edge.proto import inference_pb2 as pb
from serving.edge.proto.inference_pb2_grpc import InferenceStub
from serving.errors import Fault, Kind

IMAGE = pb.Image(data=b"hello")
SOURCE = pb.ImageSource(image=IMAGE)


def prompt(*numbers):
    return pb.ObjectPrompt(box=pb.Box(**dict(zip(("x0", "y0", "x1", "y1"), numbers, strict=True))))


@pytest.fixture
def stub(served):
    with grpc.insecure_channel(served.address) as channel:
        yield InferenceStub(channel)


def test_segment(served, stub):
    logits = (np.arange(256 * 256) % 1000).astype("<f2")
    both = pb.ObjectPrompt(points=[pb.Point(x=1, y=2, negative=True)], mask=logits.tobytes())
    request = pb.SegmentRequest(image=SOURCE, objects=[prompt(1, 2, 9, 9), both], return_logits=True, output="PACKED")
    answer, call = stub.Segment.with_call(request, metadata=[("x-request-id", "me"), ("x-priority", "bulk")], timeout=7)
    assert [(m.object, m.format, len(m.logits)) for m in answer.masks] == [(0, pb.PACKED, 131072), (1, pb.PACKED, 131072)]
    assert (answer.frame.width, answer.frame.height, list(answer.frame.spacing_mm)) == (64, 48, [0.5, 0.25])
    assert (answer.meta.model.name, answer.meta.features, answer.meta.request_id) == ("sam", "miss", "me")
    trailing = dict(call.trailing_metadata())
    assert (trailing["x-request-id"], trailing["x-features"]) == ("me", "miss")
    assert "decode;dur=1.00" in trailing["server-timing"]
    (seen,) = served.brain.seen
    assert seen.priority is Priority.BULK
    assert 6 < seen.deadline.remaining_s() < 7.5  # gRPC rounds a timeout up
    assert seen.task.objects[1].points[0].positive is False
    np.testing.assert_array_equal(seen.task.objects[1].logits.values.ravel(), logits.astype(np.float32))
    noted, until = ("segment", "adaptive", "sam", "ok", "bulk"), time.monotonic() + 30
    while noted not in served.notes.requests and time.monotonic() < until:  # it is noted when the answer is on its way
        time.sleep(0.01)
    assert served.notes.requests.count(noted) == 1


def test_everything_said_of_an_image_arrives(served, stub):
    windows = (
        (pb.Window(linear=pb.Window.Linear(width=400)), LinearWindow(0, 400)),
        (pb.Window(percentile=pb.Window.Percentile(high=99.5)), PercentileWindow(0, 99.5)),
        (pb.Window(percentile=pb.Window.Percentile(low=1, high=99, nonzero=False)), PercentileWindow(1, 99, False)),
        (pb.Window(range=pb.Window.Range(minimum=0)), RangeWindow(0)),
        (pb.Window(range=pb.Window.Range()), RangeWindow()),
    )
    for window, expected in windows:
        raw = pb.RawLayout(dtype="int16", shape=[2, 3])
        stub.EncodeImage(pb.EncodeImageRequest(image=pb.Image(data=b"x", raw=raw, index=0, axis=1, window=window)))
        image = served.brain.seen[-1].task.image
        assert image.view.window == expected
        assert (image.raw, image.view.index, image.view.axis) == (RawLayout("int16", (2, 3)), 0, 1)


def test_handles(stub):
    made = stub.EncodeImage(pb.EncodeImageRequest(image=IMAGE))
    assert stub.GetImage(pb.GetImageRequest(image_id=made.image_id)).expires_in_s == 60
    source = pb.ImageSource(image_id=made.image_id)
    assert stub.Segment(pb.SegmentRequest(image=source, objects=[prompt(0, 0, 4, 4)])).image_id == made.image_id
    assert stub.DeleteImage(pb.DeleteImageRequest(image_id=made.image_id)).image_id == made.image_id
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetImage(pb.GetImageRequest(image_id=made.image_id))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_classify_embed_infer_models(stub):
    labels = pb.Labels(names=["a", "b"])
    scored = stub.Classify(pb.ClassifyRequest(images=[SOURCE, SOURCE], labels=labels))
    np.testing.assert_allclose(np.frombuffer(scored.scores, "<f4").reshape(2, 2), [[0, 1 / 3], [2 / 3, 1]], rtol=1e-6)
    assert scored.meta.model.demonstration is True
    vectors = stub.Embed(pb.EmbedRequest(texts=["a", "b"]))
    np.testing.assert_array_equal(np.frombuffer(vectors.vectors, "<f4").reshape(-1, vectors.dimensions), np.eye(8)[:2])
    for request, kind in (
        (pb.InferRequest(images=[SOURCE], prompts=[pb.Prompt(object=prompt(0, 0, 4, 4))]), "segment"),
        (pb.InferRequest(images=[SOURCE], prompts=[pb.Prompt(labels=labels)]), "classify"),
        (pb.InferRequest(prompts=[pb.Prompt(text="a")]), "embed"),
        (pb.InferRequest(images=[SOURCE], output="embedding"), "embed"),
    ):
        assert stub.Infer(request).WhichOneof("answer") == kind
    first, second = stub.ListModels(pb.ListModelsRequest()).models
    assert (first.model.name, first.limits_json, second.model.demonstration) == ("sam", '{"objects":256}', True)


def test_the_calls_own_timeout_reaches_the_brain_and_bounds_it(served, stub):
    served.brain.delay_s = 5
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(pb.EmbedRequest(texts=["a"]), metadata=[("x-deadline-ms", "50")], timeout=5)
    assert time.monotonic() - start < 5
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError):
        stub.Embed(pb.EmbedRequest(texts=["a"]), timeout=0.1)
    until = time.monotonic() + 2
    while served.brain.cancelled < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert served.brain.cancelled == 2
    assert served.brain.seen[-1].deadline.remaining_s() < 0.2


def test_faults_and_surprises(served, stub):
    served.brain.trouble = Fault(Kind.POOL_FULL, "the pool is full", retry_after_s=1.2)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(pb.EmbedRequest(texts=["a"]))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "the pool is full")
    assert dict(caught.value.trailing_metadata())["retry-after"] == "2"
    served.brain.trouble = RuntimeError("/secret/path")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(pb.EmbedRequest(texts=["a"]))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()


def test_health(served):
    with grpc.insecure_channel(served.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "medserve.v1.Inference"):
            assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == 1
        watching = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        served.brain.ready = False
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert next(watching).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert served.notes.ready == {"adaptive": False}, "for the scrape, too"
        watching.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection(served):
    with grpc.insecure_channel(served.address) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"medserve.v1.Inference", "grpc.health.v1.Health"} <= services
