import numpy as np
import pytest

from serving.build import gate
from serving.build.gate_set import items, label_tokens, tower_images

GOOD = [0.995] * 120


def test_agreeing_masks_pass():
    verdict = gate.judge_masks(GOOD)
    assert verdict.record() == {"kind": "mask_iou", "mean": 0.995, "min": 0.995, "prompts": 120, "passed": True}


@pytest.mark.parametrize(
    "ious",
    [
        pytest.param([0.989] * 120, id="a low mean"),
        pytest.param([*GOOD, 0.949], id="one bad mask among good ones"),
        pytest.param(GOOD[:99], id="too few prompts"),
        pytest.param([], id="no prompt at all"),
        pytest.param([*GOOD, float("nan")], id="not a number"),
    ],
)
def test_masks_that_must_fail(ious):
    assert not gate.judge_masks(ious).passed


def test_a_comparison_leaves_out_small_masks_and_stops_at_the_first_image_that_fails():
    whole, small = np.ones((20, 20), bool), np.zeros((20, 20), bool)
    small[:5, :5] = True
    asked = []

    def candidate():
        for number, mask in enumerate((whole, ~whole, whole)):
            asked.append(number)
            yield [mask, ~small]

    verdict = gate.compare([[whole, small]] * 3, candidate())
    assert verdict.record() == {"kind": "mask_iou", "mean": 0.5, "min": 0.0, "prompts": 2, "passed": False}
    assert asked == [0, 1]


def test_iou():
    left, both = np.array([[True, False]]), np.array([[True, True]])
    assert gate.iou(left, both) == 0.5
    assert gate.iou(left, ~left) == 0
    assert gate.iou(~both, ~both) == 1


def rows(count=40, width=16):
    return np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)


def test_equal_embeddings_pass_whatever_their_length():
    verdict = gate.judge_embeddings("bf16", rows(), 3 * rows(), rows(5))
    assert verdict.passed
    assert verdict.numbers == {"cosine_min": 1.0, "top1_agreement": 1.0, "items": 40}


@pytest.mark.parametrize(("precision", "passes"), [("int8", True), ("bf16", False)])
def test_int8_may_move_an_embedding_further_than_bf16(precision, passes):
    noise = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
    labels = np.eye(16, dtype=np.float32)[:1]
    verdict = gate.judge_embeddings(precision, rows(), rows() + 0.06 * noise, labels)
    assert 0.99 <= verdict.numbers["cosine_min"] < 0.999
    assert verdict.passed is passes


def test_another_best_label_fails_though_the_cosine_is_high():
    wanted, found = np.tile([[1.0, 0.0]], (40, 1)), np.tile([[1.0, 0.0]], (40, 1))
    labels = np.array([[1.0, 0.01], [1.0, -0.01]])
    found[0], found[1] = [1.0, 0.02], [1.0, -0.02]
    wanted[0], wanted[1] = [1.0, -0.02], [1.0, 0.02]
    verdict = gate.judge_embeddings("bf16", *(np.float32(each) for each in (wanted, found, labels)))
    assert verdict.numbers["cosine_min"] > 0.999
    assert not verdict.passed


def test_too_few_embeddings_prove_nothing():
    assert not gate.judge_embeddings("bf16", rows(19), rows(19), rows(5)).passed


def test_the_gate_set_has_120_prompts_on_real_images():
    found = items()
    assert sum(item.points.shape[1] for item in found) == 120
    for item in found:
        assert item.given.tensor.max() == 1
        assert item.points.shape == (*item.labels.shape, 2)
        width, height = item.given.content_px
        assert (item.points >= 0).all()
        assert (item.points <= (width, height)).all()
        assert (item.points[:, :, 0] < item.points[:, :, 1]).all()


@pytest.mark.parametrize("drawn", [False, True])
def test_towers_are_judged_on_enough_images(drawn):
    images = tower_images(32, drawn=drawn)
    assert len(images) >= gate.EMBEDDINGS
    assert {image.shape for image in images} == {(1, 3, 32, 32)}
    assert len({image.tobytes() for image in images}) == len(images)


def test_label_tokens_are_the_model_s_own_labels_where_it_has_some():
    words = {"tokenizer": "words", "vocabulary": ["edema", "effusion"], "context_length": 8}
    assert label_tokens(words).shape == (14, 8)
    assert label_tokens({**words, "labels": ["edema", "effusion"]}).shape == (2, 8)
