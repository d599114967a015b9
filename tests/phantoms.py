"""Bodies whose every voxel says by its slopes where in the body it lies, and a MedLAM-like net that reads it.

A voxel's level is a sum of parabolas, one an axis, so that its slope along an axis tells the coordinate along it, whatever
part of the body a scan shows. The net's features are waves of these coordinates: planted, not trained.
"""

import gzip

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import fftconvolve

BEND = 3e-5
"""Level (0..1) a squared voxel of 3 mm."""
ORGANS = {"liver": ((-25, -6), (-14, 8), (-20, 4)), "kidney": ((4, 20), (6, 18), (-2, 12))}
"""First and last 3 mm voxel along z, y, x of the body's own frame (LAS), boxes of ellipsoids."""


def body(start, size, spacing):
    """(HU float32, labels int16) [x, y, z] in LAS: `start` and `size` in mm and voxels along (x, y, z), spacing in mm."""
    axes = np.meshgrid(*((a + s * np.arange(n)) / 3 for a, n, s in zip(start, size, spacing, strict=True)), indexing="ij")
    x, y, z = axes
    level = 0.45 + BEND * (x**2 + y**2 + z**2)
    labels = np.zeros(size, np.int16)
    for number, spans in enumerate(ORGANS.values(), start=1):
        apart = sum(((p - (a + b) / 2) / ((b - a) / 2)) ** 2 for p, (a, b) in zip((z, y, x), spans, strict=True))
        labels[apart <= 1] = number
    return ((level - 0.5) / 0.6 * 400).astype(np.float32), labels


def affine_las(spacing):
    return np.diag([-spacing[0], spacing[1], spacing[2], 1.0])


def nifti(values, affine):
    return gzip.compress(nibabel.Nifti1Image(values, affine).to_bytes(), 1)


class _Planted(torch.nn.Module):
    """Coordinates by central differences; waves of two lengths along each axis at three scales: 12 channels."""

    def places(self, patch):
        found = []
        for axis in (2, 3, 4):
            high, low = patch.narrow(axis, 2, 62), patch.narrow(axis, 0, 62)
            inner = (high - low) / (4 * BEND)
            found.append(torch.cat((inner.narrow(axis, 0, 1), inner, inner.narrow(axis, 61, 1)), axis))
        return torch.cat(found, 1)

    def scales(self, patch):
        places = self.places(patch)
        waves = [f(places * (6.2831853 / length)) for length in (24.0, 90.0) for f in (torch.cos, torch.sin)]
        fine = torch.cat(waves, 1)
        return F.avg_pool3d(fine, 4), F.avg_pool3d(fine, 2), fine

    def where(self, patch):
        middle = self.places(patch)[:, :, 28:36, 28:36, 28:36].mean((2, 3, 4))
        return 3 * middle / torch.tensor([1500.0, 600.0, 600.0])


class Position(_Planted):
    def forward(self, patch):
        return self.where(patch)


class Describe(_Planted):
    def forward(self, patch):
        crops = []
        for features in self.scales(patch):
            half, reach = features.shape[-1] // 2, features.shape[-1] // 16
            span = slice(half - reach, half + reach)
            crops.append(features[:, :, span, span, span])
        return self.where(patch), *crops


class Refine(_Planted):
    def forward(self, patch, coarse, middle, fine):
        total = 0
        for features, kernel in zip(self.scales(patch), (coarse, middle, fine), strict=True):
            width = kernel.shape[-1]
            alike = self.slide(F.normalize(features, dim=1), kernel) / width**3
            total = total + F.interpolate(alike, size=(64, 64, 64), mode="trilinear")
        return total[:, 0]

    def slide(self, features, kernel):
        return F.conv3d(features, kernel, padding=kernel.shape[-1] // 2)


class QuickRefine(Refine):
    """The same by Fourier transforms, which a graph does not have."""

    def slide(self, features, kernel):
        half = kernel.shape[-1] // 2
        padded = F.pad(features, (half,) * 6)[0].numpy()
        turned = kernel[0].flip(1, 2, 3).numpy()
        return torch.from_numpy(fftconvolve(padded, turned, mode="valid", axes=(1, 2, 3)).sum(0))[None, None]


CHANNELS = 12
PARTS = {"position": Position, "describe": Describe, "refine": Refine}
SUPPORTS = (((-130, -120, -170), (110, 96, 62), (2.4, 2.5, 5.0)), ((-150, -110, -140), (100, 90, 95), (3.0, 2.6, 3.0)),
            ((-120, -130, -160), (124, 110, 80), (2.0, 2.2, 4.0)))  # fmt: skip
QUERY = ((-142, -126, -152), (120, 104, 72), (2.2, 2.3, 4.5))
"""Start, size, spacing along (x, y, z) of three support scans and a query."""


def box_of(labels, number):
    """(2, 3): first and last index of a label along each axis."""
    places = np.argwhere(labels == number)
    return np.array([places.min(0), places.max(0)])
