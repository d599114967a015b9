"""Where a DICOM frame lies: functional groups, pixel spacing, orientation, modality."""

from __future__ import annotations

import math
import re
from typing import Any

from pydicom.dataset import Dataset

from serving.domain.image import Frame


def macro(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """The functional group macro of a frame: per-frame over shared (PS3.3 C.7.6.16.1), or the data set itself."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in (*per_frame[frame : frame + 1], *shared[:1]):
        items = groups.get(sequence)
        if items:
            item: Dataset = items[0]
            return item
    return dataset


def frame_of(dataset: Dataset, frame: int) -> Frame:
    """Size, spacing, orientation and modality of a frame.

    Spacing is Pixel Spacing (0028,0030), or Imager Pixel Spacing (0018,1164), mm at the detector, where that is all there is.
    """
    measures = macro(dataset, frame, "PixelMeasuresSequence")
    spacing = _numbers(measures.get("PixelSpacing"), 2) or _numbers(dataset.get("ImagerPixelSpacing"), 2)
    cosines = _numbers(macro(dataset, frame, "PlaneOrientationSequence").get("ImageOrientationPatient"), 6)
    # Pixel Spacing is row spacing (y), then column spacing (x): PS3.3 10.7.1.3.
    spacing_mm = (spacing[1], spacing[0]) if spacing and min(spacing) > 0 else None
    orientation = None if cosines is None else (cosines[0], cosines[1], cosines[2], cosines[3], cosines[4], cosines[5])
    return Frame((int(dataset.Columns), int(dataset.Rows)), spacing_mm, orientation, modality_of(dataset))


def modality_of(dataset: Dataset) -> str:
    """Modality (0008,0060) where it is a code string as PS3.5 6.2 has it, else ""."""
    code = str(dataset.get("Modality") or "").strip()
    return code if re.fullmatch(r"[A-Z0-9_ ]{1,16}", code) else ""


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    if value is None or isinstance(value, str | float) or len(value) != count:
        return None
    numbers = tuple(float(v) for v in value)
    return numbers if all(math.isfinite(n) for n in numbers) else None
