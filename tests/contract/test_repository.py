"""The committed Triton configurations are what the engines' specs say: `medserve models configs` writes them."""

import pytest

from serving.build import recipes
from serving.build.catalogue import ENTRIES
from serving.build.nets.litemedsam import LiteMedSam
from serving.build.published import BACKENDS, configurations
from serving.build.recipes import Choices
from serving.settings import CHECKOUT

REPOSITORY = CHECKOUT / "model_repository"


def rendered(name):
    return configurations(ENTRIES[name]).items()


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
