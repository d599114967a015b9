"""How a checkpoint of each family becomes engines: one module a family, in `RECIPES`.

A module has `parts(state, choices)` (the nets to export, their samples, the options that the checkpoint fixes),
`specs(manifest)` (the engines by part) and `own(entry)` (the options that the family's procedure adds). One whose engines may
run below float32 has a `gate` too. They import PyTorch: `of` loads one when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from serving.build.catalogue import Entry
from serving.engines.engine import EngineSpec
from serving.manifest import Manifest

if TYPE_CHECKING:
    from torch import Tensor

    from serving.build.parts import Parts

RECIPES = {
    "litemedsam": "litemedsam",
    "medsam": "medsam",
    "medsam2": "medsam2",
    "medlsam": "medlsam",
    "clip": "clip",
    "chexzero": "chexzero",
    "medclip": "medclip",
    "biomedclip": "biomedclip",
    "medsiglip": "medsiglip",
}
"""Family -> module of this package."""


@dataclass(frozen=True)
class Choices:
    """What a build was asked for. `preprocessing`: one of the entry's, or "" where it has one only or none was asked for.

    `tokenizer`: the file that tells text's ids, where the entry needs one. `options`: the entry's, as the user set them.
    """

    entry: Entry
    preprocessing: str = ""
    tokenizer: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)


class Recipe(Protocol):
    """What a module of this package has."""

    def parts(self, state: Mapping[str, Tensor], choices: Choices) -> Parts:
        """The nets of one checkpoint. Raises SetupError where its keys or shapes are another model's."""
        ...

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec of its engine."""
        ...

    def own(self, entry: Entry) -> dict[str, Any]:
        """Options that the procedure adds to what the checkpoint fixes."""
        ...


def of(family: str) -> Recipe:
    """The recipe of a family."""
    return cast(Recipe, import_module(f"{__name__}.{RECIPES[family]}"))


def gate_of(family: str) -> Callable[..., Any] | None:
    """`gate(folders, *, options, entry, say)` of a recipe that has one: see `serving.build.deploy.Gate`."""
    return getattr(of(family), "gate", None)
