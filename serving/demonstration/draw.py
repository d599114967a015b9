"""Seeded drawings of frontal chest radiographs with findings in combination."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from serving.demonstration import anatomy, findings
from serving.demonstration.anatomy import LEFT, RIGHT, SIZE, Chest, Field
from serving.demonstration.labels import CARDIOMEGALY, CONSOLIDATION, DEVICE, EDEMA, EFFUSION, LABELS, NODULE, PNEUMOTHORAX

Pixels = npt.NDArray[np.uint8]

NORMAL_SHARE = 0.15
CHANCE = 0.3
SIDES = {RIGHT: "right", LEFT: "left"}


@dataclass(frozen=True)
class Drawing:
    """What was drawn. `pixels`: (256, 256) uint8, row by row from the top, the patient's left on the right.

    `sides`: finding -> "left" or "right", for those that have one. `device`: which support device, or "".
    """

    pixels: Pixels
    findings: frozenset[str]
    sides: dict[str, str] = field(default_factory=dict)
    device: str = ""


def sample(seed: int) -> tuple[Pixels, frozenset[str]]:
    """A radiograph (256, 256) uint8 and the names of its findings, a subset of LABELS; the same for the same seed."""
    drawing = draw(seed)
    return drawing.pixels, drawing.findings


def draw(seed: int, only: frozenset[str] | None = None) -> Drawing:
    """A radiograph with random findings, or with exactly those of `only`."""
    rng = np.random.default_rng(seed)
    present = _choose(rng) if only is None else only
    chest = anatomy.draw_chest(rng, large_heart=CARDIOMEGALY in present)
    sides = {name: findings.random_side(rng) for name in (EFFUSION, PNEUMOTHORAX, NODULE, CONSOLIDATION) if name in present}
    if EFFUSION in sides and PNEUMOTHORAX in sides:
        sides[PNEUMOTHORAX] = -sides[EFFUSION]
    if PNEUMOTHORAX in sides and CONSOLIDATION in sides:
        sides[CONSOLIDATION] = -sides[PNEUMOTHORAX]
    picture = _lungs(rng, chest, present, sides)
    picture = picture + (190 - picture) * 0.28 * anatomy.skeleton(rng, chest)
    device = ""
    if DEVICE in present:
        device = str(rng.choice([findings.PACEMAKER, findings.CATHETER, findings.TUBE]))
        picture = picture + (235 - picture) * 0.85 * _device(rng, chest, device)
    named = {name: SIDES[side] for name, side in sides.items()}
    return Drawing(_expose(rng, picture), present, named, device)


def _choose(rng: np.random.Generator) -> frozenset[str]:
    if rng.random() < NORMAL_SHARE:
        return frozenset()
    return frozenset(name for name in LABELS if rng.random() < CHANCE)


def _lungs(rng: np.random.Generator, chest: Chest, present: frozenset[str], sides: dict[str, int]) -> Field:
    tissue = anatomy.background(rng, chest)
    air = np.full_like(tissue, rng.uniform(42, 62)) + 3 * anatomy.smooth_noise(rng, 10)
    air = air + 62 * anatomy.vessels(rng, chest)
    if EDEMA in present:
        air = air + (150 - air) * 0.62 * findings.edema(rng, chest)
    picture = tissue
    for lung in chest.lungs:
        inside = _filled(rng, lung, air, {name for name, side in sides.items() if side == lung.side})
        mask = lung.mask()
        picture = picture * (1 - mask) + inside * mask
    return np.asarray(picture + (158 - picture) * 0.88 * anatomy.heart(chest) * (picture < 158), np.float32)


def _filled(rng: np.random.Generator, lung: anatomy.Lung, air: Field, here: set[str]) -> Field:
    """What is seen within one lung, (256, 256)."""
    if CONSOLIDATION in here:
        air = air + (150 - air) * 0.8 * findings.consolidation(rng, lung)
    if NODULE in here:
        air = air + (158 - air) * 0.8 * findings.nodule(rng, lung)
    if PNEUMOTHORAX in here:
        collapse = findings.pneumothorax(rng, lung)
        air = (air + 12) * (1 - collapse.air) + 20 * collapse.air + 45 * collapse.line
    if EFFUSION in here:
        air = air + (152 - air) * 0.95 * findings.effusion(rng, lung)
    return np.asarray(air, np.float32)


def _device(rng: np.random.Generator, chest: Chest, device: str) -> Field:
    if device == findings.TUBE:
        return findings.tube(rng, chest)
    if device == findings.CATHETER:
        return findings.catheter(rng, chest, findings.random_side(rng))
    return findings.pacemaker(rng, chest, LEFT if rng.random() < 0.85 else RIGHT)


def _expose(rng: np.random.Generator, picture: Field) -> Pixels:
    """Position, exposure, blur and noise of one take."""
    turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), rng.uniform(-5, 5), rng.uniform(0.92, 1.06))
    turn[:, 2] = turn[:, 2] + rng.uniform(-6, 6, 2)
    moved = cv2.warpAffine(
        picture.astype(np.float32), turn, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    soft = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.3, 0.8))
    level = np.clip(soft / 200, 0, 1.3) ** rng.uniform(0.8, 1.3)
    noisy: npt.NDArray[np.float64] = (
        200 * rng.uniform(0.8, 1.15) * level + rng.uniform(-8, 14) + rng.uniform(1.5, 5) * rng.standard_normal(soft.shape)
    )
    return np.asarray(np.clip(np.round(noisy), 0, 255), np.uint8)
