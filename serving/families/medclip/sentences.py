"""The published sentences of each finding, drawn from GLoRIA's, and the seeded draw of some of them.

Source: RyanWangZf/MedCLIP, `medclip/constants.py` and `prompts.py`, their spelling kept: a corrected word is another token.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import product

ZONES = (
    "at the mid lung zone",
    "at the upper lung zone",
    "at the right lung zone",
    "at the left lung zone",
    "at the lung bases",
    "at the right lung base",
    "at the left lung base",
    "at the bilateral lung bases",
    "at the left lower lobe",
    "at the right lower lobe",
)

CHEXPERT: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Atelectasis": (
        ("", "mild", "minimal"),
        tuple(
            f"{kind} atelectasis"
            for kind in ("subsegmental", "linear", "trace", "bibasilar", "retrocardiac", "bandlike", "residual")
        ),
        ZONES,
    ),
    "Cardiomegaly": (
        ("",),
        (
            "cardiac silhouette size is upper limits of normal",
            "cardiomegaly which is unchanged",
            "mildly prominent cardiac silhouette",
            "portable view of the chest demonstrates stable cardiomegaly",
            "portable view of the chest demonstrates mild cardiomegaly",
            "persistent severe cardiomegaly",
            "heart size is borderline enlarged",
            "cardiomegaly unchanged",
            "heart size is at the upper limits of normal",
            "redemonstration of cardiomegaly",
            "ap erect chest radiograph demonstrates the heart size is the upper limits of normal",
            "cardiac silhouette size is mildly enlarged",
            "mildly enlarged cardiac silhouette, likely left ventricular enlargement. other chambers are less prominent",
            "heart size remains at mildly enlarged",
            "persistent cardiomegaly with prominent upper lobe vessels",
        ),
        ("",),
    ),
    "Consolidation": (
        ("", "increased", "improved", "apperance of"),
        tuple(f"{kind} consolidation" for kind in ("bilateral", "reticular", "retrocardiac", "patchy", "airspace", "partial")),
        (
            "at the lower lung zone",
            "at the upper lung zone",
            "at the left lower lobe",
            "at the right lower lobe",
            "at the left upper lobe",
            "at the right uppper lobe",
            "at the right lung base",
            "at the left lung base",
        ),
    ),
    "Edema": (
        ("", "mild", "improvement in", "presistent", "moderate", "decreased"),
        ("pulmonary edema", "trace interstitial edema", "pulmonary interstitial edema"),
        ("",),
    ),
    "Pleural Effusion": (
        ("", "small", "stable", "large", "decreased", "increased"),
        ("left", "right", "tiny"),
        ("bilateral pleural effusion", "subpulmonic pleural effusion", "bilateral pleural effusion"),
    ),
}
"""Finding -> the words that are put together, in this order: severity, kind and place; for effusion severity, place, kind."""
COVID = {
    "COVID": (("patchy", "confluent"), ("ground glass",), ("opacity", "consolidation"), ("in peripheral", "in mid", "in lower"))
}
RSNA = {
    "Pneumonia": (
        ("round", "early", "focal", "multifocal", "small", ""),
        ("bacterial", "viral", "mycoplasma", ""),
        (*ZONES, "at the left middle lobe", "at the right middle lobe", ""),
    )
}


def whole(sets: Mapping[str, tuple[tuple[str, ...], ...]]) -> dict[str, tuple[str, ...]]:
    """Finding -> all of its sentences, with the blanks that empty words leave: 210, 15, 192, 18 and 54 for CheXpert's five."""
    return {name: tuple(" ".join(words) for words in product(*parts)) for name, parts in sets.items()}


def drawn(count: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Finding -> `count` of its sentences, all where it has no more, or for a count of 0.

    As `random.seed(seed)` before each of upstream's three functions: one stream for CheXpert's five findings in their
    order, and again one for COVID's and one for RSNA's.
    """
    found: dict[str, tuple[str, ...]] = {}
    for sets in (CHEXPERT, COVID, RSNA):
        stream = random.Random(seed)
        for name, sentences in whole(sets).items():
            found[name] = tuple(stream.sample(sentences, count)) if 0 < count < len(sentences) else sentences
    return found
