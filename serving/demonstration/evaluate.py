"""How well the demonstration pair tells findings, on drawings and in wordings that training never saw.

python -m serving.demonstration.evaluate --images 600
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from serving.build.nets.clip import Clip
from serving.demonstration.captions import HELD_OUT_NORMAL, held_out
from serving.demonstration.draw import Drawing, draw
from serving.demonstration.labels import LABELS
from serving.demonstration.model import open_pair
from serving.demonstration.prepare import PROCEDURES, prepared
from serving.families.tokenizer import Tokenizer

FIRST_SEED = 50_000_000
CONTEXT = 64
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """Areas under the ROC curve of one procedure, finding -> area.

    `template`: CheXzero's pair of the bare name and "no" with it. `phrasings`: mean over held-out pairs of sentences;
    `worst`: the least of them. `top1`: share of drawings with one finding or none whose label CLIP's softmax puts first.
    """

    template: dict[str, float]
    phrasings: dict[str, float]
    worst: dict[str, float]
    top1: float

    @property
    def template_macro(self) -> float:
        """Mean over findings of `template`."""
        return self.macro[0]

    @property
    def macro(self) -> tuple[float, float]:
        """Means over findings of `template` and of `phrasings`."""
        return float(np.mean(list(self.template.values()))), float(np.mean(list(self.phrasings.values())))


def auc(scores: Scores, truth: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half."""
    positive, negative = scores[truth], np.sort(scores[~truth])
    below, upto = np.searchsorted(negative, positive, "left"), np.searchsorted(negative, positive, "right")
    return float((below + upto).sum() / 2 / (len(positive) * len(negative)))


@torch.inference_mode()
def embed_texts(clip: Clip, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Unit vectors (n, D)."""
    return F.normalize(clip.text_encoder(torch.from_numpy(tokenizer.batch(texts, CONTEXT))), dim=-1)


@torch.inference_mode()
def embed_images(clip: Clip, drawings: Sequence[Drawing], procedure: str) -> Tensor:
    """Unit vectors (n, D)."""
    pixels = prepared([drawing.pixels for drawing in drawings], clip.config.image_size, procedure)
    return F.normalize(torch.cat([clip.image_encoder(part) for part in pixels.split(64)]), dim=-1)


def pair_scores(images: Tensor, texts: Tensor) -> Scores:
    """CheXzero's probabilities (n,) for a positive and a negative text (2, D): no temperature."""
    return np.asarray(torch.softmax(images @ texts.T, -1)[:, 0].double().numpy())


def evaluate(clip: Clip, tokenizer: Tokenizer, drawings: Sequence[Drawing], procedure: str) -> Report:
    """Measure one procedure, "clip" or "chexzero"."""
    images = embed_images(clip, drawings, procedure)
    template: dict[str, float] = {}
    phrasings: dict[str, float] = {}
    worst: dict[str, float] = {}
    for label in LABELS:
        truth = np.array([label in drawing.findings for drawing in drawings])
        template[label] = auc(pair_scores(images, embed_texts(clip, tokenizer, [label, f"no {label}"])), truth)
        pairs = zip(held_out(label, True), held_out(label, False), strict=True)
        areas = [auc(pair_scores(images, embed_texts(clip, tokenizer, pair)), truth) for pair in pairs]
        phrasings[label], worst[label] = float(np.mean(areas)), min(areas)
    return Report(
        template, phrasings, worst, _top1(images, embed_texts(clip, tokenizer, [*LABELS, HELD_OUT_NORMAL[0]]), drawings)
    )


def _top1(images: Tensor, texts: Tensor, drawings: Sequence[Drawing]) -> float:
    first = (images @ texts.T).argmax(-1).tolist()
    named = (*LABELS, None)
    single = [(named[got], next(iter(d.findings), None)) for got, d in zip(first, drawings, strict=True) if len(d.findings) < 2]
    return sum(got == true for got, true in single) / max(1, len(single))


def table(reports: dict[str, Report]) -> str:
    """A Markdown table of reports by procedure."""
    titles = [f"{name}: {column}" for name in reports for column in ('"{}" / "no {}"', "held-out wordings", "worst wording")]
    lines = ["| finding | " + " | ".join(titles) + " |", "| --- |" + " ---: |" * len(titles)]
    for label in LABELS:
        values = [value[label] for report in reports.values() for value in (report.template, report.phrasings, report.worst)]
        lines.append(f"| {label} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    means = [f"{m:.3f}" for r in reports.values() for m in (*r.macro, float(np.mean(list(r.worst.values()))))]
    lines.append("| **macro** | " + " | ".join(means) + " |")
    lines += [f"\n{name}: softmax over the labels is right first time on {report.top1:.3f}" for name, report in reports.items()]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    arguments = parser.parse_args()
    clip, tokenizer = open_pair()
    drawings = [draw(arguments.seed + index) for index in range(arguments.images)]
    print(table({name: evaluate(clip, tokenizer, drawings, name) for name in PROCEDURES}))


if __name__ == "__main__":
    main()
