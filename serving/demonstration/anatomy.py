"""The normal chest of a drawn radiograph: soft-edged fields on a 256 x 256 canvas, the patient's left on the right.

Every field is float32 (256, 256); brightness is 0 (black, air) to 255; lengths are canvas pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

SIZE = 256
RIGHT, LEFT = -1, 1
Field = npt.NDArray[np.float32]

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def sigmoid(x: Field) -> Field:
    """0 to 1, half at 0."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), np.float32)


def rows() -> Field:
    """The y of every pixel."""
    return _Y


def columns() -> Field:
    """The x of every pixel."""
    return _X


def smooth_noise(rng: np.random.Generator, cell: int) -> Field:
    """Noise of mean 0 and deviation about 1 whose blobs are `cell` pixels wide."""
    small = rng.standard_normal((SIZE // cell + 2, SIZE // cell + 2)).astype(np.float32)
    grown = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(grown / (grown.std() + 1e-6), np.float32)


def strokes(lines: list[npt.NDArray[np.float64]], thickness: int, soft: float) -> Field:
    """Polylines (n, 2) of (x, y) as a field of 0 to about 1, blurred by `soft` pixels."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    points = [np.round(line * 16).astype(np.int32) for line in lines]
    cv2.polylines(canvas, points, False, [255], thickness, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), soft), np.float32)


@dataclass(frozen=True)
class Lung:
    """One lung's outline. `side`: RIGHT (-1) or LEFT (1) of the patient; `x`: the midline; `width` from `gap` outwards.

    `top`, `bottom`: y of the apex and of the costophrenic angle; `dome`: how far the diaphragm rises above that.
    """

    side: int
    x: float
    gap: float
    width: float
    top: float
    bottom: float
    dome: float

    @property
    def u(self) -> Field:
        """Distance from the midline towards this lung."""
        return np.asarray(self.side * (_X - self.x), np.float32)

    @property
    def height(self) -> float:
        """From apex to costophrenic angle."""
        return self.bottom - self.top

    def outer(self) -> Field:
        """The chest wall's distance from the midline at every row."""
        v = np.clip((_Y - self.top) / self.height, 0, 1)
        return np.asarray(self.gap + self.width * (1 - (1 - v) ** 2.6) ** 0.6, np.float32)

    def floor(self) -> Field:
        """The diaphragm's y at every column."""
        across = (self.u - self.gap - 0.42 * self.width) / (0.62 * self.width)
        return np.asarray(self.bottom - self.dome * np.clip(1 - across**2, -0.6, 1), np.float32)

    def mask(self) -> Field:
        """1 inside, 0 outside."""
        inner = self.gap + 5 * np.sin((_Y - self.top) / self.height * 3.1)
        inside = sigmoid((self.outer() - self.u) / 1.2) * sigmoid((self.u - inner) / 1.5)
        return np.asarray(inside * sigmoid((self.floor() - _Y) / 1.3) * sigmoid((_Y - self.top) / 1.5), np.float32)

    def at(self, v: float, w: float) -> tuple[float, float]:
        """(x, y) at `v` of the height and `w` of the width there, both 0 to 1."""
        reach = self.width * (1 - (1 - v) ** 2.6) ** 0.6
        return self.x + self.side * (self.gap + w * reach), self.top + v * self.height


@dataclass(frozen=True)
class Chest:
    """One person's anatomy. `heart_ratio`: width of the heart over that of the thorax."""

    x: float
    lungs: tuple[Lung, Lung]
    heart_ratio: float
    heart_y: float
    heart_shift: float

    @property
    def thorax_width(self) -> float:
        """Between the inner chest walls."""
        return sum(lung.gap + lung.width for lung in self.lungs)

    def lung(self, side: int) -> Lung:
        """The lung of that side of the patient."""
        return self.lungs[0] if side == RIGHT else self.lungs[1]


def draw_chest(rng: np.random.Generator, *, large_heart: bool) -> Chest:
    """A person: sizes vary; the heart is 0.55 to 0.68 of the thorax where it is large, else 0.38 to 0.48."""
    x = SIZE / 2 + rng.uniform(-5, 5)
    top, bottom = rng.uniform(30, 46), rng.uniform(182, 208)
    width, gap, dome = rng.uniform(58, 72), rng.uniform(11, 16), rng.uniform(14, 26)
    right = Lung(RIGHT, x, gap, width * rng.uniform(0.97, 1.05), top, bottom - rng.uniform(2, 9), dome)
    left = Lung(LEFT, x, gap, width, top + rng.uniform(-2, 2), bottom, dome * rng.uniform(0.8, 1.05))
    ratio = rng.uniform(0.55, 0.68) if large_heart else rng.uniform(0.38, 0.48)
    return Chest(x, (right, left), ratio, bottom - rng.uniform(26, 36), rng.uniform(0.16, 0.24))


def heart(chest: Chest) -> Field:
    """The heart's shadow, 0 to 1."""
    half = chest.heart_ratio * chest.thorax_width / 2
    centre = chest.x + chest.heart_shift * 2 * half
    tall = 30 + 0.32 * half
    bend = (_X - centre) / half + 0.25 * (_Y - chest.heart_y) / tall * -1
    radius = np.sqrt(bend**2 + ((_Y - chest.heart_y) / tall) ** 2)
    return sigmoid((1 - radius) * half / 2.2)


def skeleton(rng: np.random.Generator, chest: Chest) -> Field:
    """Ribs and clavicles, 0 to about 1."""
    ribs, step = [], rng.uniform(15, 19)
    for lung in chest.lungs:
        for index in range(9):
            y = lung.top + 4 + index * step
            reach = lung.gap + lung.width * (1 - (1 - min(1.0, (y - lung.top) / lung.height + 0.08)) ** 2.6) ** 0.6
            u = np.linspace(6, reach, 18)
            drop = rng.uniform(12, 17) * np.sin(u / reach * 2.2)
            ribs.append(np.stack([lung.x + lung.side * u, y - 4 - drop + 22 * (u / reach) ** 2.2], 1))
    bones = [
        np.array([[lung.x + lung.side * 9, lung.top + 14], [lung.x + lung.side * 50, lung.top - rng.uniform(0, 8)],
                  [lung.x + lung.side * 88, lung.top - 10]])
        for lung in chest.lungs
    ]  # fmt: skip
    return np.asarray(0.55 * strokes(ribs, 4, 1.4) + 0.7 * strokes(bones, 6, 1.6), np.float32)


def vessels(rng: np.random.Generator, chest: Chest) -> Field:
    """The branching vessels of both lungs, 0 to about 1, thinner outwards."""
    thick, thin = [], []
    for lung in chest.lungs:
        hilum = np.array(lung.at(0.5, 0.08))
        for _ in range(int(rng.integers(9, 14))):
            angle = rng.uniform(-1.35, 1.35)
            length = rng.uniform(25, 62)
            along = np.linspace(0, 1, 7)[:, None]
            bend = rng.uniform(-0.3, 0.3) * along**2
            line = hilum + length * along * np.concatenate([lung.side * np.cos(angle + bend), np.sin(angle + bend)], 1)
            thin.append(line)
            thick.append(line[:4])
    return np.asarray(0.55 * strokes(thick, 3, 1.3) + 0.45 * strokes(thin, 1, 0.8), np.float32)


def background(rng: np.random.Generator, chest: Chest) -> Field:
    """Air around a body of soft tissue, with mediastinum and spine, before the lungs are cut out."""
    half = chest.thorax_width / 2 + rng.uniform(14, 28)
    shoulder = np.clip((_Y - 8) / 45, 0, 1) ** 0.5
    body = sigmoid((half * (0.35 + 0.75 * shoulder) - np.abs(_X - chest.x)) / 3)
    spine = np.exp(-(((_X - chest.x) / 11) ** 2)) * (1 + 0.12 * np.sin(_Y / rng.uniform(2.6, 3.4)))
    middle = np.exp(-(((_X - chest.x) / rng.uniform(17, 22)) ** 2))
    trachea = np.exp(-(((_X - chest.x) / 5) ** 2)) * sigmoid((chest.lungs[0].top + 42 - _Y) / 4)
    belly = sigmoid((_Y - chest.lungs[0].bottom + 16) / 6)
    field = 8 + body * (118 + 22 * middle + 16 * spine - 26 * trachea + 34 * belly + 5 * smooth_noise(rng, 24))
    return np.asarray(field, np.float32)
