"""What MedSAM2's parts take and give is what their engines' specs say."""

import pytest
import torch
from sam2_pair import SIDE, hugging_face, record

from serving.build.nets import medsam2_layout
from serving.build.recipes.medsam2 import AXES, of_model
from serving.families.medsam2 import engines


@pytest.fixture(scope="module")
def made():
    return of_model(medsam2_layout.load(hugging_face().state_dict(), SIDE))


def fits(spec, shape):
    return len(shape) == len(spec.shape) + 1 and all(s in (-1, n) for s, n in zip(spec.shape, shape[1:], strict=True))


@pytest.mark.parametrize("part", engines.PARTS)
def test_a_part_is_as_its_spec_says(made, part):
    spec, built = engines.specs(record())[part], made.parts[part]
    given, outputs = (*spec.reads, *spec.inputs), (*spec.writes, *spec.outputs)
    assert list(built.inputs) == [each.name for each in given]
    assert list(built.outputs) == [each.name for each in outputs]
    sample = made.samples[part][-1]
    assert all(fits(each, sample[each.name].shape) and sample[each.name].dtype == each.dtype for each in given)
    with torch.inference_mode():
        found = built.module(*(torch.from_numpy(sample[each.name]) for each in given))
    found = found if isinstance(found, tuple) else (found,)
    assert all(fits(each, value.shape) for each, value in zip(outputs, found, strict=True))
    free = {each.name: {axis + 1 for axis, size in enumerate(each.shape) if size == -1} for each in spec.inputs}
    assert all(set(AXES.get(name, ())) == axes for name, axes in free.items())


def test_sizes_are_told_to_the_family(made):
    assert made.options == {"image_size": SIDE}
