import pytest

from serving.domain.image import EncodedImage, ImageHandle
from serving.domain.prompt import Box, Labels, ObjectPrompt
from serving.domain.request import Classify, Embed, Encode, Segment
from serving.errors import Fault, Kind
from serving.manifest import Manifest
from serving.router import affinity
from serving.router.brain import ServedModel
from serving.router.dispatch import choose


def served(name: str, pool: str) -> ServedModel:
    manifest = Manifest(model=name, family="f", pool=pool, digest="", source="", licence="", engines={})
    return ServedModel(manifest, ("box", "point", "mask") if pool == "adaptive" else ("labels", "text", "image"), {})


SERVED = (served("sam", "adaptive"), served("sam2", "adaptive"), served("clip", "contrastive"))
IMAGE = EncodedImage(b"pixels")
SEGMENT = Segment(IMAGE, (ObjectPrompt(Box(0, 0, 1, 1)),))
CLASSIFY = Classify((IMAGE,), Labels(("effusion",)))


@pytest.mark.parametrize(
    ("task", "model", "expected"),
    [
        (SEGMENT, None, "sam"),
        (SEGMENT, "sam2", "sam2"),
        (Encode(IMAGE), None, "sam"),
        (CLASSIFY, None, "clip"),
        (Embed(texts=("a",)), None, "clip"),
    ],
)
def test_the_prompt_kind_chooses_the_model(task, model, expected):
    assert choose(task, model, SERVED).manifest.model == expected


def test_an_unknown_model_is_told_what_is_served():
    with pytest.raises(Fault, match="sam, sam2, clip") as caught:
        choose(SEGMENT, "gpt", SERVED)
    assert caught.value.kind is Kind.UNKNOWN_MODEL


def test_a_text_prompt_to_a_visual_model_is_told_what_would_be_right():
    with pytest.raises(Fault, match=r"sam takes box or point or mask prompts, not labels; for those ask clip") as caught:
        choose(CLASSIFY, "sam", SERVED)
    assert caught.value.kind is Kind.INVALID


def test_no_model_of_that_kind():
    with pytest.raises(Fault, match="no served model takes labels"):
        choose(CLASSIFY, None, SERVED[:2])


def test_equal_images_have_equal_affinity_and_handles_carry_it():
    key = affinity.key(SEGMENT)
    assert key == affinity.key(CLASSIFY) == affinity.key(Segment(ImageHandle(f"{key}.rest"), SEGMENT.objects))
    assert affinity.key(Embed(texts=("a",))) == ""
