"""The published arithmetic, constant by constant: openmedlab/MedLSAM, `MedLAM/` and `data_process/`."""

import itertools

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform
from scipy import ndimage

from serving.errors import Fault
from serving.families.medlsam import anchors, intensity, offsets, resample
from serving.families.medlsam.orientation import orientation

CODES = ["".join(each) for order in itertools.permutations(("LR", "AP", "IS")) for each in itertools.product(*order)]
SPACING = (5.0, 0.7, 1.1)


def affine_of(codes, spacing):
    """Voxel -> RAS mm of an array whose axes run as `codes`, spacing by stored axis."""
    made = np.eye(4)
    made[:3, :3] = 0
    for axis, code in enumerate(codes):
        row = next(n for n, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        made[row, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    made[:3, 3] = (11, -7, 40)
    return made


@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_goes_to_las_and_back(codes):
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    affine = affine_of(codes, SPACING)
    found = orientation(affine[:3], volume.shape)
    image = nibabel.Nifti1Image(volume.astype(np.int16), affine)
    las = image.as_reoriented(ornt_transform(nibabel.io_orientation(affine), axcodes2ornt("LAS")))
    turned = found.turned(volume)
    assert np.array_equal(turned, np.asarray(las.dataobj).transpose(2, 1, 0))
    assert found.spacing_mm == pytest.approx(tuple(reversed(las.header.get_zooms())))
    points = np.argwhere(turned >= 0)[::7]
    back = found.stored(points).astype(int)
    assert np.array_equal(volume[tuple(back.T)], turned[tuple(points.T)])


def test_without_geometry_there_is_no_left():
    with pytest.raises(Fault, match="does not say how it lies in space"):
        orientation(None, (4, 5, 6))


@pytest.mark.parametrize("spacing", [(5.0, 0.8, 0.8), (3.0, 3.0, 3.0), (2.5, 1.4, 4.5)])
def test_values_are_zoomed_as_scipy_zooms_the_whole(spacing):
    volume = np.random.default_rng(1).normal(0, 300, (9, 31, 22)).astype(np.float32)
    wanted = ndimage.zoom(volume.astype(np.float64), np.array(spacing) / 3)
    found = resample.values_at_3mm(volume, spacing)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-9 * 300


def test_stored_samples_are_put_into_units_slice_by_slice():
    volume = np.random.default_rng(2).integers(0, 4000, (5, 8, 8)).astype(np.uint16)
    found = resample.values_at_3mm(volume, (3.0, 3.0, 3.0), lambda plane: plane.astype(np.float64) - 1024)
    assert np.abs(found - (volume - 1024.0)).max() < 1e-6


@pytest.mark.parametrize("spacing", [(5.0, 0.8, 0.8), (3.0, 3.0, 3.0), (2.5, 1.4, 4.5)])
def test_labels_are_resampled_as_one_hot_maps(spacing):
    rough = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(11, 37, 29)), 3)
    labels = np.digitize(rough, np.quantile(rough, [0.6, 0.9])).astype(np.int64)
    maps = torch.nn.functional.one_hot(torch.from_numpy(labels)).float().permute(3, 0, 1, 2)[None]
    factors = [each / 3 for each in spacing]
    shares = torch.nn.functional.interpolate(maps, scale_factor=factors, mode="trilinear")[0]
    wanted = shares.argmax(0).numpy()
    found = resample.labels_at_3mm(labels, spacing)
    assert found.shape == wanted.shape
    first, second = shares.topk(2, dim=0).values.numpy()
    clear = first - second > 1e-5  # of equal shares the last bits decide
    assert clear.mean() > 0.95
    assert np.array_equal(found[clear], wanted[clear])


def test_intensity_runs_through_the_published_knots():
    hu = np.array([-3000, -1000, -600, -200, 0, 200, 850, 1500, 4000])
    assert np.allclose(intensity.normalised(hu), [0, 0, 0.1, 0.2, 0.5, 0.8, 0.9, 1, 1], atol=1e-7)
    ready = np.array([-9.0, 0.3, 1.0])
    assert np.array_equal(intensity.normalised(ready), ready.astype(np.float32))


def upstream_extreme(label):
    """The loop of `extract_fg_cor`, its names and its order."""
    nonzero = np.asarray(np.nonzero(label))
    bounds = [nonzero.min(1), nonzero.max(1)]
    found = np.zeros((6, 3))
    for i in range(2):
        for ii in range(3):
            rows, columns = np.nonzero(label.transpose(ii, ii - 2, ii - 1)[bounds[i][ii]])
            half = len(rows) // 2
            point = np.zeros(3)
            point[ii], point[ii - 2], point[ii - 1] = bounds[i][ii], rows[half], columns[half]
            found[i * 3 + ii] = point
    return found


def blob():
    z, y, x = np.mgrid[:20, :24, :26]
    return ((z - 10) / 7.0) ** 2 + ((y - 11 - z / 4) / 5.0) ** 2 + ((x - 12) / 8.0) ** 2 < 1


def test_the_extreme_points_are_the_middle_voxels_of_the_outermost_slices():
    mask = blob()
    found = anchors.whole(mask)
    assert np.array_equal(found, upstream_extreme(mask))
    assert mask[tuple(found.T)].all()


def test_parts_are_of_equal_height_and_the_last_takes_the_rest():
    mask = blob()
    bottom, top = anchors.bounds(mask)[:, 0]
    found = anchors.parts(mask, 4).reshape(4, 6, 3)
    step = (top - bottom) // 4
    starts = [bottom + n * step for n in range(4)]
    assert list(found[:, 0, 0]) == starts
    assert list(found[:, 3, 0]) == [*starts[1:], top]
    for number, six in enumerate(found):
        part = mask[six[0, 0] : six[3, 0]]
        assert (six[1, 1], six[4, 1]) == (np.nonzero(part)[1].min(), np.nonzero(part)[1].max())
        assert (six[2, 2], six[5, 2]) == (np.nonzero(part)[2].min(), np.nonzero(part)[2].max()), number


def test_a_part_in_a_gap_has_the_bounds_of_the_one_before():
    mask = np.zeros((20, 8, 8), bool)
    mask[0:4, 2:4, 2:4] = mask[15:17, 5:7, 5:7] = True
    first, second, *_ = anchors.parts(mask, 4).reshape(4, 6, 3)
    assert list(second[[1, 2, 4, 5], [1, 2, 1, 2]]) == list(first[[1, 2, 4, 5], [1, 2, 1, 2]]) == [2, 2, 3, 3]
    assert (second[0, 0], second[3, 0]) == (4, 8)
    assert list(second[3]) == [8, 6, 5]  # slice 8 is empty: the place is that of slice 15, the next that is not


@pytest.mark.parametrize(
    ("heights", "interval", "count"), [([9, 14], 2, 4), ([40, 33], 2, 6), ([2, 30], 2, 1), ([3, 30], 2, 1), ([5], 1, 5)]
)
def test_the_number_of_parts(heights, interval, count):
    assert anchors.part_count(heights, interval) == count
    assert len(anchors.points(blob(), count)) == 6 * count


def test_relative_distances_have_the_range_of_tanh():
    support = np.array([[0.0, 0, 0], [50, 50, 50], [-50, -50, -50], [0.5, 0.5, 0.5]])
    found = offsets.relative_mm(support, np.zeros(3))
    assert np.array_equal(found[:3], [[0, 0, 0], [1500, 600, 600], [-1500, -600, -600]])
    assert np.allclose(found[3], np.array([1500, 600, 600]) * np.tanh(0.5))


def test_a_guess_is_in_voxels_and_held_where_a_patch_fits():
    size = (100, 120, 140)
    found = offsets.guess(np.array([[30.0, -31, 0], [1500, -600, 600]]), np.array([50.0, 60.0, 70.0]), size)
    assert found.tolist() == [[60, 50, 70], [67, 32, 107]]
    volume = np.arange(np.prod(size)).reshape(size)
    for centre in found:
        piece = offsets.patch(volume, centre)
        assert piece.shape == (64, 64, 64)
        assert piece[32, 32, 32] == volume[tuple(centre)]


def test_the_refinement_counts_from_the_voxel_before_the_centre():
    assert offsets.refinement(np.array([[31, 31, 31], [0, 63, 32]])).tolist() == [[0, 0, 0], [-31, 32, 1]]


def test_the_crops_are_drawn_with_the_published_seed():
    volume = offsets.padded(np.ones((80, 90, 100), np.float32))
    np.random.seed(2023)
    middle = [each // 2 for each in volume.shape]
    wanted = [[np.random.randint(each - 10, each + 10) for each in middle] for _ in range(10)]
    assert offsets.centres(volume).tolist() == wanted


def test_crops_avoid_air_and_end_where_there_is_nothing_else():
    half = np.ones((80, 90, 100), np.float32)
    half[:, :, 50:] = 0
    assert (offsets.centres(offsets.padded(half))[:, 2] < 82).all()
    nothing = offsets.padded(np.zeros((3, 4, 5), np.float32))
    (centre,) = offsets.centres(nothing)
    assert offsets.patch(nothing, centre).shape == (64, 64, 64)


@pytest.mark.parametrize("codes", ["LAS", "RAS", "LPS", "SAR", "PIR"])
def test_points_become_boxes_of_the_stored_array(codes):
    size, spacing = (30, 40, 50), (1.5, 2.0, 6.0)
    given = orientation(affine_of(codes, spacing)[:3], size)
    low, high = np.array([3, 5, 7]), np.array([12, 20, 21])
    frame = given.turned(np.zeros(size)).shape
    zoom = np.array(given.spacing_mm) / 3
    inside = np.zeros(frame, bool)
    low, high = np.minimum(low, np.array(frame) - 2), np.minimum(high, np.array(frame) - 1)
    inside[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True
    points = np.zeros((6, 3))
    for axis in range(3):
        points[axis, axis], points[3 + axis, axis] = low[axis] * zoom[axis], high[axis] * zoom[axis]
    crossed = points[[3, 1, 2, 0, 4, 5]]
    for six in (points, crossed):
        (box,) = offsets.boxes(six + 32, given)
        stored = np.zeros(size, bool)
        for index in itertools.product(*(range(n) for n in size)):
            stored[index] = all(a <= i <= b for a, i, b in zip(box[0], index, box[1], strict=True))
        assert np.array_equal(given.turned(stored), inside)


def test_a_box_beyond_the_volume_is_held_within():
    given = orientation(affine_of("LAS", (3.0, 3.0, 3.0))[:3], (10, 11, 12))
    points = np.array([[0, 0, 0]] * 3 + [[90, 90, 90]] * 3)
    assert offsets.boxes(points, given).tolist() == [[[0, 0, 0], [9, 10, 11]]]
