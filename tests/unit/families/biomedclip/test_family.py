import numpy as np

from serving.domain.prompt import Labels
from serving.domain.request import Classify
from serving.families.biomedclip.family import DECLARATION
from serving.families.clip.family import DECLARATION as CLIP
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures, towers

PARTS = ("image_encoder", "text_encoder")
NAMES = ("edema", "nodule")


async def scored(declaration, labels):
    manifest = fixtures.manifest(declaration.name, "contrastive", PARTS, towers.OPTIONS)
    family = declaration.open(manifest, fixtures.tools(towers.FUNCTIONS))
    image = fixtures.raw_image(np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8))
    return (await family.answer(fixtures.request(Classify((image,), labels)), Stages())).result


async def test_it_scores_as_clip_does_in_its_own_published_sentence():
    own = await scored(DECLARATION, Labels(NAMES))
    said = await scored(CLIP, Labels(NAMES, ("this is a photo of {}",)))
    assert own.scoring == "clip-softmax"
    assert np.array_equal(own.values, said.values)
