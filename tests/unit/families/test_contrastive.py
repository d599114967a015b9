import asyncio

import numpy as np
import pytest

from serving.domain.request import Embed
from serving.errors import Fault, Kind
from serving.families.clip import engines
from serving.families.contrastive import in_time, open_towers
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures, towers

PARTS = ("image_encoder", "text_encoder")
TEXTS = ("edema", "no sign of edema")


@pytest.mark.parametrize(("causal", "width"), [(True, 6), (False, towers.CONTEXT)])
async def test_a_tower_that_is_not_causal_is_given_the_whole_context(causal, width):
    widths = []

    def text_encoder(inputs, record):
        widths.append(inputs["tokens"].shape[1])
        return towers.text_encoder(inputs, record)

    tools = fixtures.tools({**towers.FUNCTIONS, "text_encoder": text_encoder})
    manifest = fixtures.manifest("clip", "contrastive", PARTS, towers.OPTIONS)
    (pair,) = open_towers(manifest, tools, engines.specs, causal=causal)
    vectors = await pair.texts(TEXTS, fixtures.request(Embed(texts=TEXTS)), Stages())
    assert widths == [width]
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 1e-6


async def test_waiting_for_others_ends_at_the_own_deadline():
    async def forever():
        await asyncio.Event().wait()

    with pytest.raises(Fault) as raised:
        await in_time(fixtures.request(Embed(texts=TEXTS), deadline_s=0.01), forever())
    assert raised.value.kind is Kind.DEADLINE
