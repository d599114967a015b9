import queue

import grpc
import pytest

from serving.edge.proto import inference_pb2 as pb
from serving.edge.proto.inference_pb2_grpc import InferenceStub


def image(ident, data=b"hello"):
    return pb.SegmentSessionRequest(id=ident, image=pb.EncodeImageRequest(image=pb.Image(data=data)))


def prompt(ident, *numbers, **said):
    box = pb.Box(**dict(zip(("x0", "y0", "x1", "y1"), numbers or (0, 0, 4, 4), strict=True)))
    return pb.SegmentSessionRequest(id=ident, prompt=pb.SessionPrompt(objects=[pb.ObjectPrompt(box=box)]), **said)


def talk(served, *messages, **said):
    with grpc.insecure_channel(served.address) as channel:
        return list(InferenceStub(channel).SegmentSession(iter(messages), timeout=5, **said))


def kinds(answers):
    return [(each.id, each.WhichOneof("kind")) for each in answers]


def test_prompts_in_flight_are_answered_in_order(served):
    served.brain.delay_s = 0.05
    answers = talk(served, image("i"), *(prompt(str(n)) for n in range(40)))
    assert kinds(answers) == [("i", "image"), *((str(n), "masks") for n in range(40))]
    assert all(each.masks.image_id == answers[0].image.image_id for each in answers[1:])


def test_a_later_image_switches(served):
    answers = talk(served, image("a"), prompt("1"), image("b", b"other"), prompt("2"))
    assert kinds(answers) == [("a", "image"), ("1", "masks"), ("b", "image"), ("2", "masks")]
    assert answers[1].masks.image_id == answers[0].image.image_id != answers[2].image.image_id == answers[3].masks.image_id


def test_a_bad_prompt_fails_alone(served):
    answers = talk(served, prompt("0"), image("i"), prompt("1", 9, 9, 1, 1), pb.SegmentSessionRequest(id="2"), prompt("3"))
    assert kinds(answers) == [("0", "error"), ("i", "image"), ("1", "error"), ("2", "error"), ("3", "masks")]
    assert [answers[n].error.param for n in (0, 2, 3)] == ["image", "boxes", "kind"]


def test_a_bad_image_fails_its_prompts_too(served):
    answers = talk(served, image("a"), image("b", b""), prompt("1"))
    assert kinds(answers) == [("a", "image"), ("b", "error"), ("1", "error")]


def test_a_handle_that_is_gone_is_replaced_by_the_image(served):
    sent = queue.SimpleQueue()
    with grpc.insecure_channel(served.address) as channel:
        answers = InferenceStub(channel).SegmentSession(iter(sent.get, None), timeout=5)
        sent.put(image("i"))
        assert next(answers).WhichOneof("kind") == "image"
        served.brain.handles.clear()
        sent.put(prompt("1"))
        assert next(answers).WhichOneof("kind") == "masks"
        sent.put(None)
        assert list(answers) == []


def test_a_message_that_cannot_be_read_ends_the_stream(served):
    with grpc.insecure_channel(served.address) as channel:
        call = channel.stream_stream("/medserve.v1.Inference/SegmentSession")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\xff\xff"]), timeout=5))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(caught.value.trailing_metadata())["x-error-code"] == "malformed"


def test_a_message_has_a_deadline_of_its_own(served):
    served.brain.delay_s = 0.3
    answers = talk(served, image("i"), prompt("1", deadline_ms=20), prompt("2"))
    assert kinds(answers) == [("i", "image"), ("1", "error"), ("2", "masks")]
    assert answers[1].error.code == "deadline_exceeded"


def test_a_client_that_leaves_takes_its_work_along(served):
    import time

    served.brain.delay_s = 10
    with grpc.insecure_channel(served.address) as channel:
        sent = queue.SimpleQueue()
        call = InferenceStub(channel).SegmentSession(iter(sent.get, None))
        sent.put(image("i"))
        while not served.brain.seen:
            time.sleep(0.01)
        call.cancel()
        sent.put(None)
    until = time.monotonic() + 2
    while not served.brain.cancelled and time.monotonic() < until:
        time.sleep(0.01)
    assert served.brain.cancelled == 1
