"""The parts of a family's model that become engines, and the real samples on which each build is compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from serving.build.export import Arrays, Part


@dataclass(frozen=True)
class Parts:
    """`parts` and their `samples` by part name; `options`: what the family must know of this checkpoint.

    `answers`: what PyTorch made of a part's samples, where making the samples of another part told it already.
    """

    parts: dict[str, Part]
    samples: dict[str, list[Arrays]]
    options: dict[str, Any]
    answers: dict[str, list[Arrays]] = field(default_factory=dict)
