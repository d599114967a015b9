import pytest

from serving.domain.image import EncodedImage, ImageHandle
from serving.domain.prompt import Box, Labels, ObjectPrompt
from serving.domain.request import Classify, Embed, Encode, Lookup, Segment
from serving.router.work import Costs, Lane, Work, work_of

IMAGE, HANDLE = EncodedImage(b"pixels"), ImageHandle("a.b")
OBJECTS = (ObjectPrompt(Box(0, 0, 1, 1)),) * 3
PROMPT = Work(Lane.PROMPT, masks=1)


@pytest.mark.parametrize(
    ("task", "work"),
    [
        (Segment(HANDLE, OBJECTS), Work(Lane.PROMPT, masks=3)),
        (Segment(IMAGE, OBJECTS), Work(Lane.ENCODE, "segment", 1, 3)),
        (Encode(IMAGE), Work(Lane.ENCODE, "encode", 1)),
        (Lookup(HANDLE), Work(Lane.PROMPT)),
        (Classify((IMAGE, IMAGE), Labels(("a",))), Work(Lane.PROMPT, "classify", 2)),
        (Embed(images=(IMAGE,)), Work(Lane.PROMPT, "embed_images", 1)),
        (Embed(texts=("a", "b")), Work(Lane.PROMPT, "embed_texts", 2)),
    ],
)
def test_a_task_is_of_one_class(task, work):
    assert work_of(task) == work


def test_what_was_never_measured_counts_as_nothing():
    assert Costs().expected_s(work_of(Segment(IMAGE, OBJECTS))) == 0


def test_encoding_and_decoding_are_learnt_apart_and_for_each_item():
    costs = Costs()
    spent = {"decode": 0.01, "encode": 0.2, "queue": 5.0, "decode_mask": 0.02, "postprocess": 0.006, "serialise": 0.004}
    costs.learn(Work(Lane.ENCODE, "segment", 1, 3), spent, 60)
    assert costs.expected_s(PROMPT) == pytest.approx(0.01)
    assert costs.expected_s(Work(Lane.ENCODE, "segment", 1, 0)) == pytest.approx(0.21)
    assert costs.expected_s(Work(Lane.ENCODE, "segment", 1, 10)) == pytest.approx(0.31)
    assert costs.expected_s(Work(Lane.ENCODE, "encode", 1)) == 0
    costs.learn(Work(Lane.PROMPT, "classify", 4), {"encode": 0.03, "postprocess": 0.01}, 60)
    assert costs.expected_s(Work(Lane.PROMPT, "classify", 1)) == pytest.approx(0.01)


def test_a_wait_that_hides_in_a_stage_is_taken_out():
    costs = Costs()
    costs.learn(PROMPT, {"decode_mask": 0.5}, 0.01)
    assert costs.expected_s(PROMPT) == pytest.approx(0.01)


def test_hits_and_misses_are_learnt_as_their_mix():
    costs, segment = Costs(), Work(Lane.ENCODE, "segment", 1, 0)
    for n in range(400):
        costs.learn(segment, {"encode": 0.2} if n % 4 == 0 else {}, 60)
    assert 0.02 < costs.expected_s(segment) < 0.09


def test_one_slow_start_does_not_stay():
    costs = Costs()
    for _ in range(20):
        costs.learn(PROMPT, {"decode_mask": 0.01}, 60)
    costs.learn(PROMPT, {"decode_mask": 30.0}, 60)
    assert costs.expected_s(PROMPT) < 0.02
    for _ in range(60):
        costs.learn(PROMPT, {"decode_mask": 0.1}, 60)
    assert costs.expected_s(PROMPT) == pytest.approx(0.1, rel=0.05)


def test_each_model_has_its_own_cost_and_the_pool_guesses_for_a_new_one():
    costs = Costs()
    quick, slow, new = (Work(Lane.ENCODE, "segment", 1, 1, model) for model in ("quick", "slow", "new"))
    for _ in range(20):
        costs.learn(quick, {"encode": 0.2, "decode_mask": 0.01}, 60)
    assert costs.expected_s(slow) == pytest.approx(0.21)
    costs.learn(slow, {"encode": 9.0, "decode_mask": 0.03}, 60)
    assert costs.expected_s(slow) == pytest.approx(9.03)
    assert costs.expected_s(quick) == pytest.approx(0.21)
    assert costs.expected_s(Work(Lane.PROMPT, masks=2, model="slow")) == pytest.approx(0.06)
    assert 0.21 < costs.expected_s(new) < 9.03
    assert costs.expected_s(Work(Lane.ENCODE, "encode", 1, model="slow")) == 0
