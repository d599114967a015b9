"""The precision gate's images and prompts as one file, for a machine without the readers of medical images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Given:
    """As `procedure.ModelInput`."""

    tensor: npt.NDArray[np.float32]
    content_px: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Item:
    """As `gate_set.Item`."""

    name: str
    given: Given
    size_px: tuple[int, int]
    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def save(found: Sequence[Any], path: Path) -> None:
    """Write `gate_set.items()`."""
    arrays: dict[str, Any] = {"names": np.array([item.name for item in found])}
    for n, item in enumerate(found):
        arrays |= {f"tensor{n}": item.given.tensor, f"points{n}": item.points, f"labels{n}": item.labels}
        arrays[f"sizes{n}"] = np.array([*item.given.content_px, *item.size_px])
    np.savez_compressed(path, **arrays)


def load(path: Path) -> list[Any]:
    """What `save` wrote."""
    with np.load(path) as kept:
        made = []
        for n, name in enumerate(kept["names"]):
            sizes = [int(v) for v in kept[f"sizes{n}"]]
            given = Given(kept[f"tensor{n}"], (sizes[0], sizes[1]))
            made.append(Item(str(name), given, (sizes[2], sizes[3]), kept[f"points{n}"], kept[f"labels{n}"]))
        return made
