"""Sentences about drawn radiographs: what training reads, and the other wordings that evaluation asks in.

Training and held-out sentences share their words, but no sentence and no frame of one. A finding's bare name and "no" with
its name, the pair that CheXzero's procedure asks with, are held out too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from serving.demonstration.draw import Drawing
from serving.demonstration.labels import CARDIOMEGALY, CONSOLIDATION, DEVICE, EDEMA, EFFUSION, LABELS, NODULE, PNEUMOTHORAX

T = TypeVar("T")

NAMES: Mapping[str, tuple[str, ...]] = {
    EFFUSION: ("pleural effusion", "pleural fluid", "effusion", "fluid in the pleural space"),
    CARDIOMEGALY: ("cardiomegaly", "enlarged heart", "cardiac enlargement", "enlargement of the heart"),
    PNEUMOTHORAX: ("pneumothorax", "collapsed lung", "air in the pleural space", "pleural air"),
    NODULE: ("lung nodule", "pulmonary nodule", "nodule", "nodule in the lung"),
    CONSOLIDATION: ("consolidation", "airspace opacity", "lung consolidation", "airspace consolidation"),
    DEVICE: ("support device", "medical device", "tube or line", "device"),
    EDEMA: ("edema", "pulmonary edema", "interstitial edema", "edema of the lungs"),
}
DEVICES = ("pacemaker", "catheter", "tube")

TRAIN_POSITIVE = (
    "there is {}", "there is a {}", "{} is present", "{} is seen", "the image shows {}", "evidence of {}", "findings of {}",
    "radiograph with {}", "chest x-ray showing {}", "patient with {}", "{} noted", "the study is positive for {}",
)  # fmt: skip
TRAIN_NEGATIVE = (
    "there is no {}", "{} is absent", "{} is not seen", "the image does not show {}", "no evidence of {}", "no findings of {}",
    "radiograph without {}", "chest x-ray showing no {}", "patient with no {}", "no {} noted", "the study is negative for {}",
    "no {} is seen",
)  # fmt: skip
TRAIN_OWN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    EFFUSION: (("the costophrenic angle is blunted", "fluid is seen at the lung base"), ("the costophrenic angles are clear",)),
    CARDIOMEGALY: (("the heart is enlarged", "heart size is large"), ("the heart size is normal", "the heart is not enlarged")),
    PNEUMOTHORAX: (("a pleural line with air is seen", "the lung is collapsed"), ("the lung is not collapsed",)),
    NODULE: (("a round opacity is seen in the lung", "a small nodule is seen"), ("no round opacity is seen in the lung",)),
    CONSOLIDATION: (("a patch of opacity is seen", "the lung is consolidated"), ("the lungs are free of consolidation",)),
    DEVICE: (("a device is in place", "hardware is in place"), ("no device is in place", "the chest is free of hardware")),
    EDEMA: (("haze is seen around both hila", "the lungs are congested"), ("the lungs are not congested",)),
}
TRAIN_NORMAL = (
    "the study is normal",
    "there are no findings",
    "normal chest x-ray",
    "the radiograph is normal",
    "all is clear",
)

MORE_POSITIVE = (
    "the patient does show {}", "the radiograph does show {}", "the study shows {}", "the radiograph shows {}", "{} is there",
    "the patient is positive for {}", "{} in the image",
)  # fmt: skip
MORE_NEGATIVE = (
    "the patient does not show {}", "the radiograph does not show {}", "the study shows no {}", "the radiograph shows no {}",
    "{} is not there", "the patient is negative for {}", "no {} in the image",
)  # fmt: skip
"""What the text tower alone reads in the second stage (`serving.demonstration.reread`)."""

HELD_OUT_POSITIVE = (
    "positive for {}", "{} is noted", "x-ray showing a {}", "image with {}", "the chest does show {}", "findings show {}",
    "{} in the chest",
)  # fmt: skip
HELD_OUT_NEGATIVE = (
    "negative for {}", "{} is not noted", "x-ray without {}", "image with no {}", "the chest does not show {}",
    "findings without {}", "no {} in the chest",
)  # fmt: skip
HELD_OUT_OWN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    EFFUSION: (("fluid in the costophrenic angle",), ("the pleural space is free of fluid",)),
    CARDIOMEGALY: (("a large heart",), ("a normal heart size",)),
    PNEUMOTHORAX: (("air in the pleural space around a collapsed lung",), ("lung not collapsed",)),
    NODULE: (("a small round opacity",), ("no small round nodule",)),
    CONSOLIDATION: (("a patch of consolidation in the lung",), ("lungs without a patch of opacity",)),
    DEVICE: (("hardware is seen in the chest",), ("chest without hardware",)),
    EDEMA: (("haze around the hila",), ("no haze around the hila",)),
}
HELD_OUT_NORMAL = ("a normal study", "a normal chest")
PUNCTUATION = (".", ",", "-")


def _sentences(frames: tuple[str, ...], finding: str, own: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(frame.format(name) for frame in frames for name in NAMES[finding]) + own


def training(finding: str, present: bool, *, more: bool = False) -> tuple[str, ...]:
    """Every training sentence, without a side, that says the finding is present, or that it is not.

    `more`: with the second stage's.
    """
    frames = TRAIN_POSITIVE if present else TRAIN_NEGATIVE
    added = (MORE_POSITIVE if present else MORE_NEGATIVE) if more else ()
    return _sentences((*frames, *added), finding, TRAIN_OWN[finding][0 if present else 1])


def held_out(finding: str, present: bool) -> tuple[str, ...]:
    """The same in wordings that training never reads."""
    frames = HELD_OUT_POSITIVE if present else HELD_OUT_NEGATIVE
    return _sentences(frames, finding, HELD_OUT_OWN[finding][0 if present else 1])


def located(finding: str, side: str) -> tuple[str, ...]:
    """Training sentences that also say on which side of the patient."""
    frames = ("there is a {} {}", "{} {} is seen", "{} {} is present", "evidence of {} {}")
    return tuple(frame.format(side, name) for frame in frames for name in NAMES[finding][:3])


def of_device(device: str) -> tuple[str, ...]:
    """Training sentences that name the support device."""
    return (f"a {device} is in place", f"there is a {device}", f"a {device} is seen", f"support device, {device}")


def caption(drawing: Drawing, rng: np.random.Generator, most: int = 4) -> str:
    """A report of one to `most` sentences in training wordings; it never contradicts the drawing."""
    if not drawing.findings and rng.random() < 0.4:
        return _pick(rng, TRAIN_NORMAL) + "."
    present = [name for name in LABELS if name in drawing.findings]
    absent = [name for name in LABELS if name not in drawing.findings]
    said = list(rng.permutation(present)) + list(rng.permutation(absent))
    kept = said[: int(rng.integers(max(1, min(len(present), most)), most + 1))]
    sentences = [_sentence(drawing, str(name), rng) for name in rng.permutation(kept)]
    return ". ".join(sentences) + "."


def _sentence(drawing: Drawing, finding: str, rng: np.random.Generator) -> str:
    if finding not in drawing.findings:
        return _pick(rng, training(finding, False))
    if finding in drawing.sides and rng.random() < 0.4:
        return _pick(rng, located(finding, drawing.sides[finding]))
    if finding == DEVICE and drawing.device and rng.random() < 0.6:
        return _pick(rng, of_device(drawing.device))
    return _pick(rng, training(finding, True))


def meanings() -> dict[str, tuple[str, bool]]:
    """Every training sentence about one finding -> (finding, whether it is said to be present)."""
    out: dict[str, tuple[str, bool]] = {}
    for finding in LABELS:
        positive = training(finding, True) + (located(finding, "left") + located(finding, "right"))
        if finding == DEVICE:
            positive += tuple(sentence for device in DEVICES for sentence in of_device(device))
        out |= dict.fromkeys(positive, (finding, True)) | dict.fromkeys(training(finding, False), (finding, False))
    return out


def vocabulary() -> tuple[str, ...]:
    """Every word of the training sentences, in order of the alphabet, and punctuation."""
    words = {word for text in (*meanings(), *TRAIN_NORMAL) for word in text.replace("-", " ").replace(",", " ").split()}
    return (*PUNCTUATION, *sorted(words))


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def statements(text: str) -> tuple[tuple[str, bool], ...]:
    """What a caption says: (finding, whether present) for each of its sentences; a normal study denies every finding."""
    known = meanings()
    said: list[tuple[str, bool]] = []
    for sentence in text.removesuffix(".").split(". "):
        said += [(name, False) for name in LABELS] if sentence in TRAIN_NORMAL else [known[sentence]]
    return tuple(said)
