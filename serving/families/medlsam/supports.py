"""Support sets: what is kept of labelled volumes, made once for a checkpoint, and the file that holds it.

openmedlab/MedLSAM, `process_support`: positions are averaged over the volumes, features are normalised and averaged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import Fault, Kind, SetupError
from serving.families.medlsam import anchors, intensity, offsets, resample
from serving.families.medlsam.engines import KERNELS
from serving.families.medlsam.orientation import orientation
from serving.imaging.volume import Volume

Floats = npt.NDArray[np.float32]
Describe = Callable[[Floats], Mapping[str, Floats]]
"""A patch (1, 1, 64, 64, 64) -> position (1, 3) and features (1, C, k, k, k) by the names of KERNELS. Blocking."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MODES = ("wpl", "spl")
"""Whole-patch localisation: one box; sub-patch localisation: a box for each part along z."""


@dataclass(frozen=True, eq=False)
class Structure:
    """Of one class: positions (n, 3) and, by the names of KERNELS, features (n, C, k, k, k) of its n = 6 m points."""

    positions: Floats
    features: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class SupportSet:
    """`digest`: sha256 of the checkpoint whose engines made it."""

    digest: str
    mode: str
    structures: Mapping[str, Structure]


def prepared(volume: Volume) -> tuple[Floats, Any]:
    """A volume -> padded, normalised, 3 mm (z, y, x) float32, and its Orientation. Raises Fault without geometry."""
    placed = orientation(volume.affine, volume.frame.size)
    values = resample.values_at_3mm(placed.turned(volume.samples), placed.spacing_mm, volume.values)
    return offsets.padded(intensity.normalised(values)), placed


def prepared_labels(volume: Volume) -> npt.NDArray[np.int32]:
    """A label map -> padded, 3 mm (z, y, x). Raises Fault without geometry."""
    placed = orientation(volume.affine, volume.frame.size)
    labels = np.rint(volume.values(placed.turned(volume.samples))).astype(np.int32)
    return np.pad(resample.labels_at_3mm(labels, placed.spacing_mm), offsets.HALF)


def make(
    pairs: Sequence[tuple[Floats, npt.NDArray[np.int32]]],
    classes: Mapping[str, int],
    mode: str,
    interval: int,
    describe: Describe,
) -> dict[str, Structure]:
    """Prepared volumes and label maps -> the structures. `interval`: slices of 3 mm in a part at least.

    Raises SetupError for a class that a label map does not show.
    """
    found = {}
    for name, label in classes.items():
        masks = [labels == label for _, labels in pairs]
        for number, mask in enumerate(masks, start=1):
            if not mask.any():
                raise SetupError(f"support volume {number} shows nothing of {name}, label {label}, at 3 mm")
        heights = [int(np.ptp(anchors.bounds(mask)[:, 0])) for mask in masks]
        count = anchors.part_count(heights, interval) if mode == "spl" else 1
        found[name] = _mean(
            [_structure(image, anchors.points(mask, count), describe) for (image, _), mask in zip(pairs, masks, strict=True)]
        )
    return found


def _structure(image: Floats, points: npt.NDArray[np.int64], describe: Describe) -> Structure:
    fits = np.clip(points, offsets.HALF, np.array(image.shape) - offsets.HALF)
    said = [describe(np.ascontiguousarray(offsets.patch(image, point))[None, None]) for point in fits]
    features = {name: unit(np.concatenate([each[name] for each in said])) for name in KERNELS}
    return Structure(np.concatenate([each["position"] for each in said]), features)


def unit(features: Floats) -> Floats:
    """(n, C, ...) -> length 1 along C; what is 0 stays 0."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), np.float32)


def _mean(given: Sequence[Structure]) -> Structure:
    features = {name: np.mean([each.features[name] for each in given], axis=0, dtype=np.float32) for name in KERNELS}
    return Structure(np.mean([each.positions for each in given], axis=0, dtype=np.float32), features)


def path_of(folder: Path, name: str) -> Path:
    """Where a set lies. Raises Fault(INVALID) for what is no name."""
    if not NAME.fullmatch(name):
        raise Fault(Kind.INVALID, "supports must be the name of a support set: letters, digits, - and _", param="supports")
    return folder / f"{name}.npz"


def write(path: Path, given: SupportSet) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"digest": given.digest, "mode": given.mode, "classes": list(given.structures)}
    arrays: dict[str, npt.NDArray[Any]] = {"said": np.array(json.dumps(said))}
    for number, each in enumerate(given.structures.values()):
        arrays[f"{number}/position"] = each.positions
        arrays |= {f"{number}/{name}": value for name, value in each.features.items()}
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(path)


def read(folder: Path, name: str) -> SupportSet:
    """Of a name. Raises Fault(INVALID) where there is none."""
    path = path_of(folder, name)
    if not path.is_file():
        names = ", ".join(sorted(each.stem for each in folder.glob("*.npz"))) or "none"
        raise Fault(Kind.INVALID, f"there is no support set of this name; there are: {names}", param="supports")
    with np.load(path, allow_pickle=False) as held:
        said = json.loads(str(held["said"]))
        structures = {
            each: Structure(held[f"{number}/position"], {kernel: held[f"{number}/{kernel}"] for kernel in KERNELS})
            for number, each in enumerate(said["classes"])
        }
    return SupportSet(said["digest"], said["mode"], structures)
