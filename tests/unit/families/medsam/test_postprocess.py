import numpy as np
import pytest

from serving.families.medsam.postprocess import april_mask, sam_mask, squash_mask

torch = pytest.importorskip("torch")
SQUARE = (1024, 1024)


def smooth_logits(seed):
    coarse = torch.tensor(np.random.default_rng(seed).normal(size=(1, 1, 16, 16)).astype(np.float32) * 8)
    return torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")[0, 0].numpy()


def bilinear(values, size):
    return torch.nn.functional.interpolate(values, (size[1], size[0]), mode="bilinear", align_corners=False)


def published_sam(values, content, size):
    """`Sam.postprocess_masks` without its threshold."""
    large = bilinear(torch.as_tensor(values)[None, None], SQUARE)[..., : content[1], : content[0]]
    return bilinear(large, size)[0, 0]


FRAMES = [(SQUARE, (512, 512)), ((1024, 768), (640, 480)), ((741, 1024), (217, 300)), (SQUARE, (1500, 1400))]


@pytest.mark.parametrize(("content", "size"), FRAMES)
def test_each_generation_in_its_published_order(content, size):
    for seed in range(2):
        logits = smooth_logits(seed)
        wanted = {
            sam_mask: published_sam(logits, content, size) > 0,
            april_mask: published_sam(torch.sigmoid(torch.tensor(logits)), content, size) > 0.5,
            squash_mask: bilinear(torch.sigmoid(torch.tensor(logits))[None, None], size)[0, 0] > 0.5,
        }
        for function, mask in wanted.items():
            found = function(logits, content, size)
            assert (found.shape, found.dtype) == ((size[1], size[0]), np.bool_)
            assert 0.02 < found.mean() < 0.98
            assert (found != mask.numpy()).mean() <= 1e-5


def test_the_sigmoid_comes_before_the_resize():
    logits = np.full((256, 256), -1, np.float32)
    logits[:, 128:] = 20
    late, early = (function(logits, SQUARE, (2560, 256))[0].argmax() for function in (sam_mask, squash_mask))
    assert late < early == pytest.approx(1280, abs=2)


def test_extreme_logits_do_not_overflow():
    logits = np.full((256, 256), -1e4, np.float32)
    with np.errstate(all="raise"):
        assert not squash_mask(logits, SQUARE, (64, 64)).any()
        assert april_mask(-logits, SQUARE, (64, 64)).all()


def test_padding_never_bleeds_into_the_image():
    logits = np.full((256, 256), 50, np.float32)
    logits[:128, :256] = -1
    assert not sam_mask(logits, (1024, 510), (1000, 498)).any()
