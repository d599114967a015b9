import numpy as np

from serving.families.contrastive import LabelCache, fill, unit


def vector(value):
    return np.full(3, value, np.float32)


def test_the_cache_is_bounded_and_the_least_recently_used_leaves():
    cache = LabelCache(entries=2)
    cache.put(b"a", vector(1))
    cache.put(b"b", vector(2))
    assert cache.get(b"a")[0] == 1
    cache.put(b"c", vector(3))
    assert len(cache) == 2
    assert cache.get(b"b") is None
    assert (cache.get(b"a")[0], cache.get(b"c")[0]) == (1, 3)


def test_rows_become_unit_vectors():
    rows = unit(np.array([[3, 4], [0, -2]], np.float32))
    assert np.allclose(rows, [[0.6, 0.8], [0, -1]])
    assert rows.dtype == np.float32


def test_only_the_place_of_the_label_is_filled():
    assert fill("sign of {} {x}", "{}") == "sign of {} {x}"
    assert fill("no {}", "nodule") == "no nodule"
