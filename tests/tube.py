"""A volume that a box can be followed through: a bright tube that wanders, with noise."""

import nibabel
import numpy as np

COLUMNS, ROWS = 96, 80


def voxels(slices):
    """(slices, rows, columns) uint8."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    drawn = [90 * (np.hypot(x - 40 - 2 * z, y - 36 - z) < 14 + z) + rng.normal(70, 12, x.shape) for z in range(slices)]
    return np.stack(drawn).clip(0, 255).astype(np.uint8)


def nifti(volume, spacing_mm):
    """A NIfTI file's bytes of (slices, rows, columns), axes x, y, z `spacing_mm` apart."""
    return nibabel.Nifti1Image(volume.T, np.diag([*spacing_mm, 1.0])).to_bytes()
