"""Percentiles without a copy against numpy's."""

import tracemalloc

import numpy as np
import pytest

from serving.imaging.order import Ordered

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(-3, 50, 30_001)


def same(values):
    return values


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint32])
@pytest.mark.parametrize("positive", [False, True])
def test_they_are_numpy_s(dtype, positive):
    samples = (np.abs(NORMAL) if dtype is np.uint32 else NORMAL * 1e3).astype(dtype)
    chosen = samples[samples > 0] if positive else samples
    for low, high in ((0, 100), (0.5, 99.5), (33.3, 50)):
        expected = np.percentile(chosen.astype(np.float64), [low, high])
        assert Ordered(samples, same).percentiles(low, high, positive=positive) == pytest.approx(expected, rel=1e-6)
    assert Ordered(samples, same).extent() == (samples.min(), samples.max())


def test_scaled_values_are_what_is_ordered():
    samples = NORMAL.astype(np.float32)
    found = Ordered(samples, lambda each: each.astype(np.float64) * -2 + 7).percentiles(5, 90, positive=False)
    assert found == pytest.approx(np.percentile(samples.astype(np.float64) * -2 + 7, [5, 90]))


def test_what_is_not_finite_is_left_out():
    samples = np.array([np.nan, 1, np.inf, -2, 5, -np.inf], np.float32)
    assert Ordered(samples, same).percentiles(0, 100, positive=False) == (-2, 5)
    assert Ordered(samples, same).extent() == (-2, 5)


def test_none_above_zero_and_none_at_all():
    assert Ordered(np.array([-3.0, -1.0]), same).percentiles(0, 100, positive=True) == (-3, -1)
    assert Ordered(np.array([np.nan]), same).percentiles(0, 100, positive=True) == (0, 0)
    assert Ordered(np.array([np.nan]), same).extent() == (0, 0)


def test_a_volume_is_not_copied():
    samples = np.zeros((256, 256, 128), np.float32)
    samples[::3] = 1
    tracemalloc.start()
    Ordered(samples, same).percentiles(0.5, 99.5, positive=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < samples.nbytes
