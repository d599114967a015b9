"""Versions of a model: by weight and content for images, by their tag for handles."""

import hashlib

import pytest

from serving.domain.image import EncodedImage, ImageHandle
from serving.domain.prompt import Box, ObjectPrompt
from serving.domain.request import Embed, Segment
from serving.embeddings.keys import features_key, handle_of
from serving.errors import Fault, SetupError
from serving.manifest import Manifest, engine_name
from serving.router import affinity, dispatch, versions
from serving.router.brain import ServedModel

OBJECTS = (ObjectPrompt(box=Box(0, 0, 2, 2)),)


def model(name, pool="adaptive"):
    manifest = Manifest(model=name, family="f", pool=pool, digest=f"digest of {name}", source="", licence="", engines={})
    return ServedModel(manifest, ("box",), {})


SERVED = (model("sam"), model("sam@2"), model("sam@3"), model("other"))


def image(number):
    return EncodedImage(b"image %d" % number)


def picked(task, weights, asked=None, served=SERVED):
    chosen = dispatch.choose(task, asked, served)
    return versions.pick(chosen, asked, task, affinity.key(task), served, weights).manifest.model


def shares(weights, count=2000):
    names = [picked(Segment(image(n), OBJECTS), weights) for n in range(count)]
    return {name: names.count(name) / count for name in set(names)}


def test_without_weights_the_plain_model_answers():
    assert shares({}) == {"sam": 1.0}


def test_images_are_shared_out_by_weight():
    found = shares({"sam": {"2": 10, "3": 40}})
    assert found["sam@2"] == pytest.approx(0.10, abs=0.02)
    assert found["sam@3"] == pytest.approx(0.40, abs=0.03)
    assert shares({"sam": {"2": 100}}) == {"sam@2": 1.0}


def test_more_weight_takes_images_from_the_plain_model_only():
    def of(percent):
        return {n for n in range(500) if picked(Segment(image(n), OBJECTS), {"sam": {"2": percent}}) == "sam@2"}

    assert of(10) < of(50) < of(100)


def test_a_handle_goes_to_the_version_that_made_it():
    content = image(1).content_key()
    for name in ("sam", "sam@2", "sam@3"):
        key = features_key("tenant", f"digest of {name}", "p", content)
        assert picked(Segment(ImageHandle(handle_of(content, key)), OBJECTS), {"sam": {"2": 50}}) == name


def test_a_handle_that_nobody_made_goes_by_weight():
    foreign = ImageHandle("0" * 32 + "." + hashlib.sha256(b"x").hexdigest()[:32])
    assert picked(Segment(foreign, OBJECTS), {"sam": {"2": 100}}) == "sam@2"


def test_a_version_that_is_named_answers():
    assert picked(Segment(image(1), OBJECTS), {"sam": {"2": 100}}, asked="sam@3") == "sam@3"
    with pytest.raises(Fault):
        picked(Segment(image(1), OBJECTS), {}, asked="sam@9")


def test_the_name_of_a_model_of_which_only_a_version_is_served():
    assert picked(Segment(image(1), OBJECTS), {}, asked="sam", served=(model("sam@2"),)) == "sam@2"


def test_vectors_are_never_shared_out():
    served = (model("clip", "contrastive"), model("clip@2", "contrastive"))
    for task in (Embed(images=(image(1),)), Embed(texts=("a",))):
        assert picked(task, {"clip": {"2": 100}}, served=served) == "clip"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"sam": {"9": 10}}, "sam@9 is not built"),
        ({"sam": {"2": -1}}, "no percentage"),
        ({"sam": {"2": 60, "3": 60}}, "more than 100"),
    ],
)
def test_wrong_weights_are_refused(weights, said):
    with pytest.raises(SetupError, match=said):
        versions.check(weights, (each.manifest.model for each in SERVED))


def test_shares_say_what_each_gets():
    assert versions.shares(SERVED, {"sam": {"2": 10}}) == {"sam": 0.9, "sam@2": 0.1, "sam@3": 0.0, "other": 1.0}


def test_the_engines_of_a_version_have_folders_of_their_own():
    names = {engine_name(name, "mask_decoder") for name in ("sam-b", "sam-b@2", "sam-b@2.1")}
    assert names == {"sam_b_mask_decoder", "sam_b_v2_mask_decoder", "sam_b_v2_1_mask_decoder"}
