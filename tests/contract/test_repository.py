"""The committed Triton configurations are what the engines' specs say."""

import pytest

from serving.build import config, recipes
from serving.build.catalogue import ENTRIES
from serving.build.nets.litemedsam import LiteMedSam
from serving.build.recipes import Choices
from serving.manifest import Manifest
from serving.settings import CHECKOUT

REPOSITORY = CHECKOUT / "model_repository"
BACKENDS = {"image_encoder": "openvino", "mask_decoder": "openvino"}
OPTIONS = {
    "litemedsam": {},
    "medsam": {},
    "medlsam": {},
    "sam-vit-b": {},
    "sam-vit-l": {},
    "sam-vit-h": {},
    "synthetic-cxr": {"image_size": 128, "embed_dim": 128},
    # ViT-B/32, which both projects publish; a checkpoint of other sizes gets its own when it is built.
    "clip": {"image_size": 224, "embed_dim": 512},
    "chexzero": {"image_size": 224, "embed_dim": 512},
    "medclip": {"image_size": 224, "embed_dim": 512},
    "biomedclip": {"image_size": 224, "embed_dim": 512},
    "medsiglip": {"image_size": 448, "embed_dim": 1152},
}


def rendered(name):
    entry = ENTRIES[name]
    family = entry.models[0][1]
    draft = Manifest(
        model=name, family=family, pool=entry.pool, digest="", source="", licence="", engines={}, options=OPTIONS[name]
    )
    for part, spec in recipes.of(family).specs(draft).items():
        yield f"{spec.name}/config.pbtxt", config.tensorrt(spec)
        yield f"{spec.name}/configs/cpu.pbtxt", config.cpu(spec, BACKENDS.get(part, "onnxruntime"))


@pytest.mark.parametrize("name", ENTRIES)
def test_committed_is_rendered(name):
    for path, text in rendered(name):
        assert (REPOSITORY / path).read_text() == text


def test_no_configuration_is_left_over():
    committed = {str(p.relative_to(REPOSITORY)) for p in REPOSITORY.rglob("*.pbtxt")}
    assert committed == {path for name in ENTRIES for path, _ in rendered(name)}


def test_the_backends_are_those_of_the_parts():
    made = recipes.of("litemedsam").parts(LiteMedSam().state_dict(), Choices(ENTRIES["litemedsam"]))
    found = {name: part.backend for name, part in made.parts.items()}
    assert {name: backend for name, backend in found.items() if backend == "openvino"} == BACKENDS
