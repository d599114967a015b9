"""pyradiomics' brain1: an MR volume with a labelled tumour, and the published way to ask for it."""

from pathlib import Path

import nrrd
import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "pyradiomics"
IMAGE = FOLDER / "brain1_image.nrrd"
WINDOW = {"low": 0.5, "high": 99.5, "nonzero": True}
MARGIN_PX, LEAST_PX = 5, 50


def cases():
    """(slice index, label (rows, columns) bool, box) of each axial slice with at least 50 labelled pixels."""
    labels = nrrd.read(str(FOLDER / "brain1_label.nrrd"))[0] > 0
    found = []
    for index in range(labels.shape[2]):
        label = labels[:, :, index].T
        if label.sum() < LEAST_PX:
            continue
        rows, columns = np.nonzero(label)
        height, width = label.shape
        x0, y0 = max(columns.min() - MARGIN_PX, 0), max(rows.min() - MARGIN_PX, 0)
        x1, y1 = min(columns.max() + MARGIN_PX, width - 1), min(rows.max() + MARGIN_PX, height - 1)
        found.append((index, label, (int(x0), int(y0), int(x1), int(y1))))
    return found


def dice(one, other):
    """Of two masks."""
    return 2 * (one & other).sum() / (one.sum() + other.sum())
