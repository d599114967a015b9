import asyncio

import numpy as np
import pytest
from gated import Gated, turns

from serving.errors import Fault, Kind
from serving.families.labels import LabelTables, check_sentences, fill, unit

SETS = (("{}", "sign of {}"), ("no {}", "no sign of {}"))
NAMES = ("edema", "nodule", "effusion")


def vector(text):
    return unit(np.random.default_rng(sum(text.encode())).normal(size=8))


def encoder(**more):
    return Gated(lambda texts: np.stack([vector(text) for text in texts]), **more)


def expected(names, sets):
    means = [np.mean([vector(fill(t, name)) for t in templates], axis=0) for templates in sets for name in names]
    return unit(np.stack(means))


async def test_a_row_is_the_renormalised_mean_over_the_templates():
    encode = encoder()
    table = await LabelTables("d").table(NAMES, SETS, encode)
    assert (table.shape, table.dtype, table.flags.writeable) == ((6, 8), np.float32, False)
    assert np.abs(table - expected(NAMES, SETS)).max() <= 1e-6
    assert len(encode.calls) == 1


async def test_a_set_that_is_known_is_one_object_and_rows_are_shared_between_sets():
    tables, encode = LabelTables("d"), encoder()
    first = await tables.table(NAMES, SETS, encode)
    assert await tables.table(NAMES, SETS, encode) is first
    turned = await tables.table(NAMES[::-1], SETS[:1], encode)
    assert np.array_equal(turned, first[2::-1])
    await tables.table((*NAMES, "new"), SETS, encode)
    assert encode.calls[1:] == [["new", "sign of new", "no new", "no sign of new"]]


async def test_the_same_new_labels_at_the_same_time_make_one_call():
    tables, encode = LabelTables("d"), encoder(held=True)
    waiting = [asyncio.create_task(tables.table(NAMES, SETS, encode)) for _ in range(3)]
    waiting.append(asyncio.create_task(tables.table((*NAMES[:2], "new"), SETS[:1], encode)))
    await turns()
    encode.open.set()
    found = await asyncio.gather(*waiting)
    assert [sorted(call) for call in encode.calls[1:]] == [["new", "sign of new"]]
    assert all(table is found[0] for table in found[:3])
    assert np.array_equal(found[3][:2], found[0][:2])


async def test_both_stores_are_bounded():
    tables, encode = LabelTables("d", rows_bytes=4 * (512 + 32), tables_bytes=2 * (512 + 32)), encoder()
    for round_ in range(2):
        for name in "abcdef":
            await tables.table((name,), (("{}",),), encode)
        assert len(encode.calls) == 6 * (round_ + 1)


def test_rows_become_unit_vectors():
    rows = unit(np.array([[3, 4], [0, -2]], np.float32))
    assert np.allclose(rows, [[0.6, 0.8], [0, -1]])
    assert rows.dtype == np.float32


def test_only_the_place_of_the_label_is_filled():
    assert fill("sign of {} {x}", "{}") == "sign of {} {x}"
    assert fill("no {}", "nodule") == "no nodule"


def test_more_sentences_than_a_call_may_cost_are_refused():
    check_sentences(100, 100)
    with pytest.raises(Fault) as raised:
        check_sentences(101, 100)
    assert raised.value.kind is Kind.TOO_LARGE
