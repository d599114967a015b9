"""How each finding changes a drawn chest. Nothing here is measured on people: shapes and sizes are textbook sketches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.demonstration.anatomy import LEFT, RIGHT, Chest, Field, Lung, columns, rows, sigmoid, smooth_noise, strokes

PACEMAKER, CATHETER, TUBE = "pacemaker", "catheter", "tube"


@dataclass(frozen=True)
class Pneumothorax:
    """`air`: where there is air and no lung, 0 to 1; `line`: the visceral pleura, 0 to 1."""

    air: Field
    line: Field


def effusion(rng: np.random.Generator, lung: Lung) -> Field:
    """Fluid that fills the costophrenic angle and rises along the chest wall, 0 to 1 within the lung."""
    level = lung.bottom - lung.dome * 0.6 - lung.height * rng.uniform(0.08, 0.38)
    across = np.clip((lung.u - lung.gap) / lung.width, 0, 1)
    surface = level - rng.uniform(10, 22) * across**2.5 + 5 * (1 - across) ** 3
    return sigmoid((rows() - surface) / 2.5)


def pneumothorax(rng: np.random.Generator, lung: Lung) -> Pneumothorax:
    """A rim of air along the chest wall, widest at the apex."""
    depth = rng.uniform(9, 22)
    v = np.clip((rows() - lung.top) / lung.height, 0, 1)
    rim = depth * (1.2 - rng.uniform(0.2, 0.75) * v)
    inside = np.minimum(lung.outer() - rim - lung.u, rows() - lung.top - 0.9 * rim)
    return Pneumothorax(sigmoid(-inside / 0.8), np.asarray(np.exp(-((inside / 1.3) ** 2)), np.float32))


def nodule(rng: np.random.Generator, lung: Lung) -> Field:
    """A round dense spot of 5 to 10 pixels radius, away from the hilum, 0 to 1."""
    x, y = lung.at(rng.uniform(0.2, 0.7), rng.uniform(0.35, 0.8))
    radius, squeeze = rng.uniform(5, 10), rng.uniform(0.85, 1.15)
    distance = np.hypot((columns() - x) * squeeze, (rows() - y) / squeeze)
    return sigmoid((radius - distance) / 0.9)


def consolidation(rng: np.random.Generator, lung: Lung) -> Field:
    """A patch of filled lung with an uneven edge, 0 to about 1."""
    x, y = lung.at(rng.uniform(0.25, 0.78), rng.uniform(0.3, 0.75))
    wide, tall = rng.uniform(19, 33), rng.uniform(17, 30)
    radius = np.hypot((columns() - x) / wide, (rows() - y) / tall)
    edge = sigmoid((1 + 0.22 * smooth_noise(rng, 12) - radius) / 0.14)
    return np.asarray(edge * (0.85 + 0.13 * smooth_noise(rng, 6)), np.float32)


def edema(rng: np.random.Generator, chest: Chest) -> Field:
    """Haze around both hila and fine lines towards the chest wall, 0 to about 1."""
    haze = np.zeros_like(rows())
    lines = []
    for lung in chest.lungs:
        x, y = lung.at(rng.uniform(0.48, 0.6), 0.3)
        spread = np.hypot((columns() - x) / rng.uniform(30, 40), (rows() - y) / rng.uniform(42, 56))
        haze = haze + np.exp(-(spread**2)) * rng.uniform(0.75, 1.0)
        for _ in range(26):
            v = rng.uniform(0.45, 0.9)
            start, end = lung.at(v, rng.uniform(0.55, 0.8)), lung.at(v + rng.uniform(-0.03, 0.03), 0.95)
            lines.append(np.array([start, end]))
    texture = 1 + 0.2 * smooth_noise(rng, 4)
    return np.asarray(np.clip(haze, 0, 1) * texture + 0.35 * strokes(lines, 1, 0.7), np.float32)


def pacemaker(rng: np.random.Generator, chest: Chest, side: int) -> Field:
    """A generator below the clavicle with one or two leads into the heart, 0 to 1."""
    lung = chest.lung(side)
    x, y = lung.x + side * rng.uniform(58, 74), lung.top + rng.uniform(20, 38)
    corner = np.maximum(np.abs(columns() - x) / rng.uniform(12, 15), np.abs(rows() - y) / rng.uniform(9, 12))
    round_off = np.hypot(columns() - x, rows() - y) / 17
    case = sigmoid(np.asarray((1 - np.maximum(corner, round_off)) * 14, np.float32))
    leads = []
    for _ in range(int(rng.integers(1, 3))):
        end = (chest.x + rng.uniform(0, 34), chest.heart_y + rng.uniform(0, 20))
        path = np.array([(x, y), (chest.x + side * 18, lung.top + 16), (chest.x - 12, lung.top + 60), end])
        leads.append(_curve(path))
    return np.asarray(np.clip(case + strokes(leads, 2, 0.6), 0, 1), np.float32)


def catheter(rng: np.random.Generator, chest: Chest, side: int) -> Field:
    """A central venous line from the neck or the clavicle down to the right of the heart, 0 to 1."""
    top = chest.lung(side).top
    start = (chest.x + side * rng.uniform(24, 70), top - rng.uniform(4, 24))
    tip = (chest.x - rng.uniform(10, 17), chest.heart_y - rng.uniform(18, 44))
    path = np.array([start, (chest.x + side * 16, top + 12), (chest.x - 10, top + 34), tip])
    return strokes([_curve(path)], 2, 0.7)


def tube(rng: np.random.Generator, chest: Chest) -> Field:
    """An endotracheal tube in the midline, with a dense stripe and a hollow middle, 0 to 1."""
    top, end = -4.0, chest.lungs[0].top + rng.uniform(34, 52)
    y = np.linspace(top, end, 12)
    x = chest.x + rng.uniform(-2, 2) + rng.uniform(-3, 3) * np.linspace(0, 1, 12) ** 2
    return strokes([np.stack([x - 2.6, y], 1), np.stack([x + 2.6, y], 1)], 2, 0.6)


def random_side(rng: np.random.Generator) -> int:
    """RIGHT or LEFT, as likely."""
    return int(rng.choice([RIGHT, LEFT]))


def _curve(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A smooth polyline (40, 2) through a Bezier polygon (4, 2)."""
    t = np.linspace(0, 1, 40)[:, None]
    a, b, c, d = points.astype(np.float64)
    return np.asarray((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d)
