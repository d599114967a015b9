import numpy as np
import pytest

from serving.families.clip.postprocess import scores

torch = pytest.importorskip("torch")


def test_equals_softmax_of_scaled_cosines():
    rng = np.random.default_rng(0)
    images, labels = (rng.normal(size=(n, 32)).astype(np.float32) for n in (4, 6))
    images, labels = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (images, labels))
    expected = torch.softmax(100.0 * torch.tensor(images) @ torch.tensor(labels).T, dim=1).numpy()
    given = scores(images, labels, 100.0)
    assert given.dtype == np.float32
    assert np.abs(given - expected).max() <= 1e-5
    assert np.allclose(given.sum(axis=1), 1)


def test_a_large_scale_does_not_overflow():
    one = np.array([[1, 0]], np.float32)
    assert scores(one, np.array([[1, 0], [-1, 0]], np.float32), 1e4).tolist() == [[1, 0]]
