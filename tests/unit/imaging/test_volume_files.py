"""NIfTI and NRRD in and out: geometry against nibabel and pynrrd, budgets, overlaps, packed bits."""

import gzip
import io
import tracemalloc
import zlib

import nibabel
import nrrd
import numpy as np
import pytest

from serving.domain.volume import EncodedVolume, VolumeFormat
from serving.errors import Fault, Kind
from serving.imaging import volumes
from serving.imaging.volume_file import Collector
from serving.settings import LimitSettings, VolumeSettings

LIMITS, BUDGET = LimitSettings(), VolumeSettings()
SHAPE = (7, 6, 5)
AFFINE = np.array([[0, -2.0, 0, 11], [1.5, 0, 0.3, -7], [0, 0, 3.0, 40], [0, 0, 0, 1]])


def samples(dtype=np.int16):
    return np.random.default_rng(0).integers(0, 900, SHAPE).astype(dtype)


def nifti(values, affine=AFFINE):
    return gzip.compress(nibabel.Nifti1Image(values, affine).to_bytes())


def nrrd_of(values, **header):
    buffer = io.BytesIO()
    nrrd.write(buffer, values, header)
    return buffer.getvalue()


def read(data, budget=BUDGET):
    return volumes.read(EncodedVolume((data,)), LIMITS, budget)


def fault(data, budget=BUDGET):
    with pytest.raises(Fault) as caught:
        read(data, budget)
    assert caught.value.param == "volume"
    return caught.value


def collected(volume, axis, masks, output):
    made = Collector(volume.frame, axis, len(masks), output)
    for number, mask in enumerate(masks):
        for index in range(mask.shape[axis]):
            made.add(index, number, np.take(mask, index, axis=axis).T)
    return made


def masks():
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[1:5, 2:5, 1:4] = True
    second[3:6, 1:4, 2:5] = True
    return first, second


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_nifti_comes_back_in_its_own_geometry(axis):
    found = collected(read(nifti(samples())), axis, masks(), VolumeFormat.NIFTI)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(found.file()))
    assert np.allclose(image.affine, AFFINE, atol=1e-5)
    first, second = masks()
    assert np.array_equal(np.asarray(image.dataobj), np.where(second, 2, first))
    assert image.get_data_dtype() == np.uint8
    assert [each.voxels for each in found.objects()] == [first.sum(), second.sum()]
    assert (found.objects()[0].first, found.objects()[0].last) == ((1, 4), (2, 4), (1, 3))[axis]


def test_the_later_object_stays_whatever_comes_first():
    volume = read(nifti(samples()))
    made = Collector(volume.frame, 2, 2, VolumeFormat.NIFTI)
    everywhere = np.ones((6, 7), bool)
    made.add(0, 1, everywhere)
    made.add(0, 0, everywhere)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(made.file()))
    assert (np.asarray(image.dataobj)[:, :, 0] == 2).all()


def test_an_nrrd_comes_back_in_its_own_geometry():
    directions = np.array([[0, 1.5, 0], [2.0, 0, 0], [0, 0.3, 3.0]])
    header = {"space": "RAS", "space directions": directions, "space origin": [1.0, 2.0, 3.0]}
    data = collected(read(nrrd_of(samples(), **header)), 2, masks(), VolumeFormat.NRRD).file()
    values, found = nrrd.read_data_header(data) if hasattr(nrrd, "read_data_header") else _parsed(data)
    flip = np.array([-1, -1, 1])
    assert found["space"] == "left-posterior-superior"
    assert np.allclose(found["space directions"], directions * flip)
    assert np.allclose(found["space origin"], np.array([1, 2, 3]) * flip)
    first, second = masks()
    assert np.array_equal(values, np.where(second, 2, first))


def _parsed(data):
    stream = io.BytesIO(data)
    header = nrrd.read_header(stream)
    return nrrd.read_data(header, stream), header


def test_packed_bits_keep_overlapping_objects_apart():
    data = collected(read(nifti(samples())), 2, masks(), VolumeFormat.PACKED).file()
    for mask in masks():
        size = int.from_bytes(data[:8], "little")
        bits = np.frombuffer(zlib.decompress(data[8 : 8 + size]), np.uint8).reshape(5, 6, 1)
        assert np.array_equal(np.unpackbits(bits, axis=2, count=7).astype(bool), mask.transpose(2, 1, 0))
        data = data[8 + size :]
    assert data == b""


def test_slices_are_pictures_of_the_whole_volume_s_window():
    volume = read(nifti(samples()))
    slices = volumes.Slices(volume, None, 2)
    positive = samples()[samples() > 0]
    low, high = np.percentile(positive, [0.5, 99.5])
    expected = ((samples()[:, :, 3].T.clip(low, high) - low) / (high - low) * 255).astype(np.uint8)
    assert np.array_equal(slices.pixels(3), expected)


def test_the_budget_is_told_from_the_header():
    assert fault(nifti(samples())[:400] + b"damaged", VolumeSettings(max_voxels=100)).kind is Kind.TOO_LARGE
    assert "volumes.memory_bytes" in fault(nifti(samples()), VolumeSettings(memory_bytes=1000)).message
    assert fault(nrrd_of(samples()), VolumeSettings(memory_bytes=500)).kind is Kind.TOO_LARGE


def test_a_ct_of_300_slices_fits_the_default_budget():
    volumes.check_budget((512, 512, 300), np.dtype(np.int16), True, BUDGET)


def test_a_volume_is_read_and_windowed_within_what_the_budget_counts():
    shape = (256, 256, 64)
    values = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    data = nifti(values)
    del values
    tracemalloc.start()
    volumes.Slices(read(data), None, 2).pixels(30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Samples and what they are unpacked from, twice at its end, and the histogram's pieces; never float64 of the whole.
    assert peak < np.prod(shape) * 2 * 3 + len(data) + (64 << 20)


def test_what_is_no_volume_is_refused():
    broken = bytearray(nibabel.Nifti1Image(samples(), AFFINE).to_bytes())
    broken[80:92] = np.zeros(3, "<f4").tobytes()  # pixdim 1 to 3
    broken[252:256] = bytes(4)  # neither qform nor sform
    assert "pixdim" in fault(bytes(broken)).message
    assert fault(b"\x89PNG\r\n\x1a\n rest").kind is Kind.UNSUPPORTED_MEDIA
    assert fault(nifti(samples())[:-40]).kind is Kind.MALFORMED
    within = gzip.compress(nibabel.Nifti1Image(samples(), AFFINE).to_bytes()[:200])
    assert "ends within its header" in fault(within).message
    with pytest.raises(Fault) as caught:
        EncodedVolume((b"",))
    assert caught.value.kind is Kind.MALFORMED
