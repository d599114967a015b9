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


@pytest.mark.parametrize(("padding", "width"), [("cut", 6), ("call", 6), ("whole", towers.CONTEXT)])
async def test_a_tower_that_reads_padding_is_given_the_whole_context(padding, width):
    widths = []

    def text_encoder(inputs, record):
        widths.append(inputs["tokens"].shape[1])
        return towers.text_encoder(inputs, record)

    tools = fixtures.tools({**towers.FUNCTIONS, "text_encoder": text_encoder})
    manifest = fixtures.manifest("clip", "contrastive", PARTS, towers.OPTIONS)
    (pair,) = open_towers(manifest, tools, engines.specs, padding=padding)
    vectors = await pair.texts(TEXTS, fixtures.request(Embed(texts=TEXTS)), Stages())
    assert widths == [width]
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 1e-6


async def test_texts_that_are_given_together_are_padded_alike_where_padding_counts():
    texts = ("edema",) * 40 + ("no sign of edema",)
    for padding, expected in (("cut", [3, 6]), ("call", [6, 6])):
        widths = []

        def text_encoder(inputs, record, widths=widths):
            widths.append(inputs["tokens"].shape[1])
            return towers.text_encoder(inputs, record)

        tools = fixtures.tools({**towers.FUNCTIONS, "text_encoder": text_encoder})
        manifest = fixtures.manifest("clip", "contrastive", PARTS, towers.OPTIONS)
        (pair,) = open_towers(manifest, tools, engines.specs, padding=padding)
        await pair.texts(texts, fixtures.request(Embed(texts=texts)), Stages())
        assert widths == expected


async def test_waiting_for_others_ends_at_the_own_deadline():
    async def forever():
        await asyncio.Event().wait()

    with pytest.raises(Fault) as raised:
        await in_time(fixtures.request(Embed(texts=TEXTS), deadline_s=0.01), forever())
    assert raised.value.kind is Kind.DEADLINE
