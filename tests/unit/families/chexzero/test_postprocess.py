import math

import numpy as np

from serving.families.chexzero.postprocess import ensemble, pair_probabilities


def unit_rows(seed, count):
    rows = np.random.default_rng(seed).normal(size=(count, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_equals_the_published_formula_without_temperature():
    images, positives, negatives = unit_rows(0, 3), unit_rows(1, 5), unit_rows(2, 5)
    given = pair_probabilities(images, np.concatenate([positives, negatives]))
    assert (given.shape, given.dtype) == ((3, 5), np.float32)
    for i in range(3):
        for k in range(5):
            for_it = math.exp(sum(float(a) * float(b) for a, b in zip(images[i], positives[k], strict=True)))
            against = math.exp(sum(float(a) * float(b) for a, b in zip(images[i], negatives[k], strict=True)))
            assert abs(given[i, k] - for_it / (for_it + against)) <= 1e-6


def test_the_range_is_that_of_two_cosines():
    one = np.array([[1.0, 0.0]], np.float32)
    assert abs(pair_probabilities(one, np.concatenate([one, -one]))[0, 0] - 1 / (1 + math.exp(-2))) <= 1e-6
    assert abs(pair_probabilities(one, np.concatenate([-one, one]))[0, 0] - 1 / (1 + math.exp(2))) <= 1e-6
    assert pair_probabilities(one, np.concatenate([one, one]))[0, 0] == 0.5


def test_the_ensemble_is_the_mean_of_probabilities():
    given = ensemble([np.array([[0.2, 0.8]], np.float32), np.array([[0.4, 0.2]], np.float32)])
    assert np.allclose(given, [[0.3, 0.5]])
    assert given.dtype == np.float32
