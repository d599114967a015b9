"""Train the demonstration pair from nothing, on drawn radiographs and their captions; the same towers for the same seed.

    python -m serving.demonstration.train
    python -m serving.demonstration.reread

The second command teaches the text tower more wordings. Three contrastive losses and a plain one (a linear reading of the
findings, which shows the image tower what to look for and is thrown away after training): each finding's positive against its
negative sentence, an image against the positive sentences of all findings, and images against captions where everything that
a caption says true of an image is a match.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.clip import Clip
from serving.demonstration import model
from serving.demonstration.captions import TRAIN_NORMAL, caption, statements, training, vocabulary
from serving.demonstration.draw import Drawing, draw
from serving.demonstration.evaluate import evaluate
from serving.demonstration.labels import LABELS
from serving.demonstration.prepare import PROCEDURES
from serving.families.tokenizer import WordTokenizer

DEVELOPMENT_SEED = 40_000_000
TRAINING_SEED = 0
WORDINGS = 2
CAPTIONS = 32


@dataclass(frozen=True)
class Data:
    """`planes`: procedure -> (n, S, S) uint8. `truth`: (n, findings) bool. `drawings` without their pixels' use."""

    planes: dict[str, npt.NDArray[np.uint8]]
    truth: npt.NDArray[np.bool_]
    drawings: list[Drawing]


def render(count: int, size: int) -> Data:
    """Draw the training set and prepare it in both ways."""
    planes = {name: np.empty((count, size, size), np.uint8) for name in PROCEDURES}
    truth = np.zeros((count, len(LABELS)), np.bool_)
    drawings = []
    for index in range(count):
        drawing = draw(TRAINING_SEED + index)
        for name, (plane, _) in PROCEDURES.items():
            planes[name][index] = np.clip(np.round(plane(drawing.pixels, size)), 0, 255)
        truth[index] = [label in drawing.findings for label in LABELS]
        drawings.append(Drawing(drawing.pixels[:0], drawing.findings, drawing.sides, drawing.device))
    return Data(planes, truth, drawings)


class Losses:
    """The three losses of one batch. Texts are drawn anew for every batch."""

    def __init__(self, clip: Clip, tokenizer: WordTokenizer, rng: np.random.Generator, *, more: bool = False) -> None:
        self._clip, self._tokenizer, self._rng, self._more = clip, tokenizer, rng, more

    def texts(self, texts: list[str]) -> Tensor:
        """Unit vectors (n, D), gradients on."""
        ids = self._tokenizer.batch(texts, self._clip.config.context_length)
        longest = int(ids.argmax(-1).max()) + 1
        return F.normalize(self._clip.text_encoder(torch.from_numpy(ids[:, :longest])), dim=-1)

    def _pick(self, sentences: tuple[str, ...]) -> str:
        return sentences[int(self._rng.integers(len(sentences)))]

    def of_sentences(self, images: Tensor, truth: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Positive against negative sentence; and the positive sentences of all findings (and of a normal study)."""
        count = len(LABELS)
        said = [
            self._pick(training(label, present, more=self._more))
            for _ in range(WORDINGS)
            for present in (True, False)
            for label in LABELS
        ]
        vectors = self.texts([*said, *(self._pick(TRAIN_NORMAL) for _ in range(WORDINGS))])
        sentences = vectors[: len(said)].view(WORDINGS, 2, count, -1)
        cosines = torch.einsum("bd,kpld->kpbl", images, sentences)
        pair = F.binary_cross_entropy_with_logits(scale * (cosines[:, 0] - cosines[:, 1]), truth.expand(WORDINGS, -1, -1))
        normal = torch.einsum("bd,kd->kb", images, vectors[len(said) :])[..., None]
        choice = torch.log_softmax(scale * torch.cat([cosines[:, 0], normal], -1), -1)
        target = torch.cat([truth, (truth.sum(-1, keepdim=True) == 0).float()], -1)
        return pair, -(choice * target / target.sum(-1, keepdim=True)).sum(-1).mean()

    def of_captions(self, images: Tensor, truth: Tensor, drawings: list[Drawing], scale: Tensor) -> Tensor:
        """Images against captions, in both directions, matches shared out evenly."""
        captions = [caption(drawing, self._rng) for drawing in drawings]
        match = torch.ones(len(images), len(captions))
        for column, text in enumerate(captions):
            for finding, present in statements(text):
                match[:, column] *= (truth[:, LABELS.index(finding)] == float(present)).float()
        logits = scale * images @ self.texts(captions).T
        by_image = -(torch.log_softmax(logits, 1) * match / match.sum(1, keepdim=True).clamp(min=1)).sum(1).mean()
        by_text = -(torch.log_softmax(logits, 0) * match / match.sum(0, keepdim=True)).sum(0).mean()
        return (by_image + by_text) / 2


def augmented(planes: npt.NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """(B, S, S) f32: shifted by up to 5 pixels, brightness and contrast changed a little."""
    out = torch.from_numpy(planes).float()
    dy, dx = (int(v) for v in rng.integers(-5, 6, 2))
    padded = F.pad(out[:, None], (5, 5, 5, 5), mode="replicate")[:, 0]
    out = padded[:, 5 + dy : 5 + dy + out.shape[1], 5 + dx : 5 + dx + out.shape[2]]
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(out), 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-10, 10, (len(out), 1, 1)).astype(np.float32))
    return out * gain + shift


def parameters(clip: Clip, scale: nn.Parameter, decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms, embeddings and the scale do not."""
    every = [*clip.image_encoder.parameters(), *clip.text_encoder.parameters()]
    matrices = [p for p in every if p.ndim > 1]
    rest = [p for p in every if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": [*rest, scale], "weight_decay": 0.0}]


def train(data: Data, *, steps: int, batch: int, seed: int, rate: float, report_every: int) -> tuple[Clip, float]:
    """The trained towers and the logarithm of their scale."""
    rng = np.random.default_rng([seed, 1])
    clip, tokenizer = model.new_pair(vocabulary(), seed)
    log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    losses = Losses(clip, tokenizer, rng)
    reading = nn.Linear(clip.config.embed_dim, len(LABELS))
    groups = [*parameters(clip, log_scale, 0.05), {"params": reading.parameters(), "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.08, cycle_momentum=False)
    development = [draw(DEVELOPMENT_SEED + index) for index in range(200)]
    names, started = tuple(PROCEDURES), time.monotonic()
    for step in range(steps):
        chosen = rng.integers(len(data.truth), size=batch)
        name = names[step % len(names)]
        pixels = PROCEDURES[name][1](augmented(data.planes[name][chosen], rng))
        with torch.autocast("cpu", torch.bfloat16):
            projected = clip.image_encoder(pixels)
        images, truth = F.normalize(projected.float(), dim=-1), torch.from_numpy(data.truth[chosen]).float()
        scale = log_scale.exp()
        pair, choice = losses.of_sentences(images, truth, scale)
        matched = losses.of_captions(images, truth, [data.drawings[i] for i in chosen[:CAPTIONS]], scale)
        plain = F.binary_cross_entropy_with_logits(reading(projected.float()), truth)
        loss = pair + 0.3 * choice + 0.2 * matched + plain
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*clip.image_encoder.parameters(), *clip.text_encoder.parameters()], 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            log_scale.clamp_(0, math.log(100))
        if (step + 1) % report_every == 0 or step + 1 == steps:
            found = evaluate(clip, tokenizer, development, names[1])
            areas = " ".join(f"{area:.2f}" for area in found.template.values())
            spent = time.monotonic() - started
            print(
                f"step {step + 1} of {steps}, {spent:.0f} s: pair {pair.item():.3f} choice {choice.item():.3f}"
                f" captions {matched.item():.3f} plain {plain.item():.3f} scale {scale.item():.1f},"
                f" development AUC {found.template_macro:.3f} ({areas})",
                flush=True,
            )
    return clip, log_scale.item()


def main() -> None:
    """Draw, train, write the files."""
    parser = argparse.ArgumentParser(description="train the demonstration pair of towers")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report-every", type=int, default=250)
    parser.add_argument("--folder", type=Path, default=model.HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    data = render(arguments.images, model.config(0).image_size)
    print(f"{arguments.images} radiographs drawn in {time.monotonic() - started:.0f} s", flush=True)
    clip, log_scale = train(
        data, steps=arguments.steps, batch=arguments.batch, seed=arguments.seed, rate=arguments.rate,
        report_every=arguments.report_every,
    )  # fmt: skip
    folder = arguments.folder
    model.save(clip, vocabulary(), log_scale, folder / model.WEIGHTS.name, folder / model.VOCABULARY.name)
    print(f"written after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
