import pytest

from serving.domain.request import Classify, Embed, Encode, Lookup, Segment
from serving.domain.volume import SegmentVolume
from serving.families.medsam2.engines import PARTS
from serving.families.registry import FAMILIES
from tests.unit.families import fixtures, towers


def test_every_family_under_its_own_name():
    assert set(FAMILIES) == {
        "litemedsam",
        "medsam",
        "medsam2",
        "medlsam",
        "clip",
        "chexzero",
        "medclip",
        "biomedclip",
        "medsiglip",
    }
    assert all(name == declaration.name for name, declaration in FAMILIES.items())


def test_the_tasks_are_those_of_the_pool():
    tasks = {"adaptive": {Segment, Encode, Lookup}, "contrastive": {Classify, Embed}}
    whole = {SegmentVolume}  # what a model of the adaptive pool may take besides, and MedLSAM takes alone
    for name, declaration in FAMILIES.items():
        assert declaration.tasks - whole == (set() if name == "medlsam" else tasks[declaration.pool])
    taking = {name for name, declaration in FAMILIES.items() if whole <= declaration.tasks}
    assert taking == {name for name, declaration in FAMILIES.items() if declaration.pool == "adaptive"}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("litemedsam", {"image_encoder", "mask_decoder", "mask_refiner"}),
        ("medsam", {"image_encoder", "mask_decoder", "mask_refiner"}),
        ("medsam2", set(PARTS)),
        ("medlsam", {"position", "describe", "refine"}),
        ("clip", {"image_encoder", "text_encoder"}),
        ("chexzero", {"image_encoder", "text_encoder"}),
        ("medclip", {"image_encoder", "text_encoder"}),
        ("biomedclip", {"image_encoder", "text_encoder"}),
        ("medsiglip", {"image_encoder", "text_encoder"}),
    ],
)
def test_specs_name_the_parts_and_limits_are_plain_values(name, parts):
    declaration = FAMILIES[name]
    manifest = fixtures.manifest(name, declaration.pool, parts, towers.OPTIONS)
    assert set(declaration.specs(manifest)) == parts
    limits = declaration.limits(manifest)
    assert limits
    assert all(isinstance(value, int | float | str | list) for value in limits.values())
