import numpy as np
import pytest

from serving.families.litemedsam.postprocess import binary_mask

torch = pytest.importorskip("torch")


def smooth_logits(seed):
    rng = np.random.default_rng(seed)
    coarse = torch.tensor(rng.normal(size=(1, 1, 16, 16)).astype(np.float32) * 8)
    return torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")[0, 0].numpy()


def published(logits, content, size):
    """Crop, resize, sigmoid, threshold, in that order."""
    cropped = torch.tensor(logits)[None, None, : content[1], : content[0]]
    resized = torch.nn.functional.interpolate(cropped, (size[1], size[0]), mode="bilinear", align_corners=False)
    return (torch.sigmoid(resized) > 0.5)[0, 0].numpy()


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ((256, 256), (512, 512)),
        ((256, 192), (640, 480)),
        ((185, 256), (217, 300)),
        ((256, 256), (97, 97)),
        ((256, 3), (900, 9)),
    ],
)
def test_equals_the_published_order(content, size):
    for seed in range(3):
        logits = smooth_logits(seed)
        mask = binary_mask(logits, content, size)
        assert (mask.shape, mask.dtype) == ((size[1], size[0]), np.bool_)
        assert 0.02 < mask.mean() < 0.98
        assert (mask != published(logits, content, size)).mean() <= 1e-5


def test_padding_never_bleeds_into_the_image():
    logits = np.full((256, 256), 50, np.float32)
    logits[:100, :200] = -1
    assert not binary_mask(logits, (200, 100), (1000, 500)).any()


def test_resizing_comes_before_the_threshold():
    logits = np.zeros((256, 256), np.float32)
    logits[:, :128], logits[:, 128:] = -1, 9
    row = binary_mask(logits, (256, 256), (2560, 256))[0]
    assert row.argmax() < 1280


def test_sigmoid_above_half_is_logit_above_zero_but_for_rounding():
    logits = np.float32(10.0) ** np.linspace(-6.6, 2, 20_000, dtype=np.float32)
    logits = np.concatenate([-logits, [np.float32(0), -np.float32(0)], logits]).astype(np.float32)
    assert np.array_equal((torch.sigmoid(torch.tensor(logits)) > 0.5).numpy(), logits > 0)
