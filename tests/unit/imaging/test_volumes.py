"""NIfTI against nibabel, NRRD against pynrrd, windows against numpy."""

import gzip
import io

import nibabel
import nrrd
import numpy as np
import pytest

from serving.domain.image import EncodedImage, LinearWindow, PercentileWindow, RangeWindow, View
from serving.errors import Fault, Kind
from serving.imaging.decode import decode
from serving.settings import LimitSettings

LIMITS = LimitSettings()
SHAPE = (12, 9, 5)
FULL = RangeWindow(0, 255)


def volume(dtype=np.int16):
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(dtype)


def nifti(samples, kind=nibabel.Nifti1Image, zipped=False, slope=None):
    image = kind(samples, np.diag([2.0, 3.0, 4.0, 1.0]))
    if slope:
        image.header.set_slope_inter(*slope)
    data = image.to_bytes()
    return gzip.compress(data) if zipped else data


def nrrd_of(samples, **header):
    buffer = io.BytesIO()
    nrrd.write(buffer, samples, {"space directions": np.diag([2.0, 3.0, 4.0]), "space": "LPS", **header})
    return buffer.getvalue()


def read(data, **view):
    return decode(EncodedImage(data, view=View(**view)), LIMITS)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_nifti_slices_are_nibabel_s(kind, zipped, dtype):
    samples = volume(dtype)
    data = nifti(samples, kind, zipped)
    for axis in range(3):
        for index in (0, SHAPE[axis] - 1):
            expected = np.take(samples, index, axis=axis).T
            assert np.array_equal(read(data, axis=axis, index=index, window=FULL).pixels, expected)


def test_nifti_s_slope_and_geometry_are_used():
    found = read(nifti(volume(), slope=(2.0, -100.0)), index=1, window=RangeWindow(-100, 410))
    assert np.abs(found.pixels - volume()[:, :, 1].T).max() <= 1
    assert found.frame.spacing_mm == (2.0, 3.0)
    assert found.frame.orientation == (-1, 0, 0, 0, -1, 0)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_nrrd_slices_are_pynrrd_s(encoding):
    data = nrrd_of(volume(), encoding=encoding)
    found = read(data, index=2, window=FULL)
    assert np.array_equal(found.pixels, volume()[:, :, 2].T)
    assert found.frame.spacing_mm == (2.0, 3.0)
    assert found.frame.orientation == (1, 0, 0, 0, 1, 0)


def test_percentiles_are_those_of_the_whole_volume():
    samples = volume()
    samples[:, :, 0] = 0
    low, high = np.percentile(samples[samples > 0], [0.5, 99.5])
    expected = ((samples[:, :, 3].T.clip(low, high) - low) / (high - low) * 255).astype(np.uint8)
    assert np.array_equal(read(nifti(samples), index=3, window=PercentileWindow(0.5, 99.5, nonzero=True)).pixels, expected)
    assert np.array_equal(read(nifti(samples), index=3).pixels, expected)


def test_a_linear_window_is_in_the_file_s_units():
    expected = ((volume()[:, :, 1].T.clip(50.0, 150) - 50) / 100 * 255).astype(np.uint8)
    assert np.array_equal(read(nifti(volume()), index=1, window=LinearWindow(100, 100)).pixels, expected)


def test_a_missing_or_wrong_index_says_how_many_there_are():
    for view, words in (({}, "5 slices"), ({"index": 5}, "0 to 4"), ({"index": 9, "axis": 1}, "9 slices")):
        with pytest.raises(Fault, match=words) as caught:
            read(nifti(volume()), **view)
        assert caught.value.kind is Kind.INVALID


def test_a_gzip_bomb_stops_at_the_limit():
    header = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).header
    header.set_data_shape((20_000, 20_000, 30))
    bomb = gzip.compress(header.binaryblock + bytes(1 << 20))
    with pytest.raises(Fault) as caught:
        read(bomb, index=0)
    assert caught.value.kind is Kind.TOO_LARGE


def test_four_dimensions_and_other_gzips_are_refused():
    with pytest.raises(Fault) as caught:
        read(nifti(np.zeros((4, 4, 4, 3), np.int16)), index=0)
    assert caught.value.kind is Kind.INVALID
    with pytest.raises(Fault) as caught:
        read(gzip.compress(b"hello" * 200))
    assert caught.value.kind is Kind.UNSUPPORTED_MEDIA
