"""A series sorted by position, its geometry against nibabel's reading of the result, and what is refused."""

import io
import random
import re
import zipfile

import numpy as np
import pytest
from series import file_of, generate_uid, series_of, volume

from serving.domain.image import LinearWindow
from serving.domain.volume import EncodedVolume
from serving.errors import Fault, Kind
from serving.imaging import volumes
from serving.settings import LimitSettings, VolumeSettings

LIMITS, BUDGET = LimitSettings(), VolumeSettings()
SAMPLES = volume()


def read(files, budget=BUDGET, **said):
    return volumes.read(EncodedVolume(tuple(files), **said), LIMITS, budget)


def refused(files, budget=BUDGET):
    with pytest.raises(Fault) as caught:
        read(files, budget)
    assert caught.value.param == "volume"
    assert not re.search(r"Secret|4711|[\d.]{20}|\n", caught.value.message)
    return caught.value


def shuffled(files):
    files = list(files)
    random.Random(1).shuffle(files)
    return files


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("DICOMDIR", b"no picture")
        archive.writestr("__MACOSX/._a", b"no picture")
        for n, data in enumerate(files):
            archive.writestr(f"Secret Name/{n}.dcm", data)
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_files_in_any_order_become_one_volume(packed):
    files = shuffled(series_of(SAMPLES))
    found = read([zipped(files)] if packed else files)
    assert np.array_equal(found.samples, SAMPLES)
    assert (found.slope, found.intercept, found.modality) == (1, -1024, "CT")
    assert found.spacing_mm == (1.5, 2.0, 3.0)
    lps = np.array(found.affine) * [[-1], [-1], [1]]
    assert np.allclose(lps @ [1, 2, 3, 1], [-10 + 1.5, 20 + 4, 30 + 9])


def test_slices_are_sorted_along_the_normal_of_an_oblique_series():
    cosines = (0.8, 0.6, 0, 0, 0, -1)
    normal = np.cross(cosines[:3], cosines[3:])
    files = shuffled(series_of(SAMPLES, step=2.5 * normal, cosines=cosines))
    found = read(files)
    assert np.array_equal(found.samples, SAMPLES)
    assert found.spacing_mm == pytest.approx((1.5, 2.0, 2.5), abs=1e-3)
    assert np.allclose(found.directions, [cosines[:3], cosines[3:], normal], atol=1e-3)
    backwards = read(series_of(SAMPLES, step=-2.5 * normal, cosines=cosines))
    assert np.array_equal(backwards.samples, SAMPLES[:, :, ::-1])


def test_a_tilted_gantry_stays_in_the_affine():
    found = read(series_of(SAMPLES, step=(0, 0.5, 3)))
    assert np.allclose(np.array(found.affine)[:, 2], [0, -0.5, 3])


def test_slopes_that_differ_become_real_values():
    files = [file_of(SAMPLES[:, :, n].T, (0, 0, n), slope=n + 1, intercept=0) for n in range(5)]
    found = read(files)
    assert found.samples.dtype == np.float32
    assert np.array_equal(found.samples, SAMPLES * np.arange(1, 6, dtype=np.float32))


def test_a_multi_frame_file_without_positions_keeps_its_order():
    frames = np.ascontiguousarray(SAMPLES.transpose(2, 1, 0))
    data = file_of(frames, None, NumberOfFrames=5, SpacingBetweenSlices=4)
    found = read([data])
    assert np.array_equal(found.samples, SAMPLES)
    assert found.spacing_mm == (1.5, 2.0, 4.0)


def test_the_window_is_the_request_s_then_the_file_s_then_ct_s():
    files = series_of(SAMPLES, WindowCenter=0, WindowWidth=401)
    stated = read(files)
    assert stated.stated == LinearWindow(-0.5, 400)
    slices = volumes.Slices(stated, None, 2)
    values = SAMPLES[:, :, 2].T.astype(float) - 1024
    assert np.abs(slices.pixels(2) - ((values + 200.5) / 400 * 255).clip(0, 255)).max() < 1
    ct = volumes.Slices(read(series_of(SAMPLES)), None, 2)
    assert np.abs(ct.pixels(2) - ((values + 160) / 400 * 255).clip(0, 255)).max() < 1


def test_missing_slices_are_named():
    files = series_of(volume((4, 4, 9)))
    message = refused(shuffled(files[:3] + files[5:])).message
    assert message.startswith("slices are missing: 2 between 2 and 3,")


def test_doubled_slices_are_named():
    files = series_of(SAMPLES)
    assert "two slices lie at one place: 2 and 3," in refused([*files, files[2]]).message


def test_mixed_spacing_is_named():
    files = [file_of(SAMPLES[:, :, n].T, (0, 0, z)) for n, z in enumerate((0, 3, 6, 7.3, 10.3))]
    assert "the spacing of the slices is mixed: it differs between 2 and 3" in refused(files).message
    odd = [*series_of(SAMPLES)[:4], file_of(SAMPLES[:, :, 4].T, (-10, 20, 42), spacing=(1, 1))]
    assert "more than one pixel spacing: slices 4 differ" in refused(odd).message


def test_mixed_orientation_series_and_size_are_named():
    files = series_of(SAMPLES)
    scout = file_of(SAMPLES[:, :, 0].T, (0, 0, 0), cosines=(1, 0, 0, 0, 0, -1))
    assert "more than one orientation: 5 differ" in refused([*files, scout]).message
    other = file_of(SAMPLES[:, :, 0].T, (-10, 20, 45), series=generate_uid())
    assert "more than one series: slices 5 differ" in refused([*files, other]).message
    small = file_of(SAMPLES[:4, :, 0].T, (-10, 20, 45))
    assert "more than one size: slices 5 differ" in refused([*files, small]).message


def test_what_has_no_position_or_is_no_dicom_is_refused():
    assert "cannot be sorted: 0, 1" in refused([file_of(SAMPLES[:, :, n].T, None) for n in range(2)]).message
    assert refused([*series_of(SAMPLES), b"hello"]).kind is Kind.UNSUPPORTED_MEDIA
    assert refused([zipped([])]).kind is Kind.INVALID
    assert refused([zipped(series_of(SAMPLES))[:-30]]).kind is Kind.MALFORMED


def test_the_budget_is_held_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr("serving.imaging.dicom_series.parse", lambda *_: pytest.fail("decoded"))
    fault = refused(series_of(SAMPLES), VolumeSettings(max_voxels=200))
    assert fault.kind is Kind.TOO_LARGE
    assert "7 x 6 x 5 voxels" in fault.message
    assert refused(series_of(SAMPLES), VolumeSettings(memory_bytes=600)).kind is Kind.TOO_LARGE
    assert refused([zipped(series_of(SAMPLES))], VolumeSettings(max_files=3)).kind is Kind.TOO_LARGE


def test_a_cut_file_is_malformed_and_names_nobody():
    files = series_of(SAMPLES)
    fewer, none, before = "fewer pixels than its header says", "slice 4 is cut short", "file 4, as sent from 0, is cut short"
    for kept, told in ((-20, fewer), (-100, none), (250, before)):
        fault = refused([*files[:4], files[4][:kept]])
        assert fault.kind is Kind.MALFORMED
        assert told in fault.message
