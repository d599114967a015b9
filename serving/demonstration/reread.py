"""The second stage of training: the image tower stays as it is, the text tower reads more wordings of the same findings.

    python -m serving.demonstration.reread

After the first stage a sentence was misread when one of its words had been read in denials alone ("does show", where training
knew "does not show"). The image vectors are made once, so a step costs little.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.build.nets.clip import Clip
from serving.demonstration import model
from serving.demonstration.prepare import PROCEDURES
from serving.demonstration.train import Data, Losses, render
from serving.families.tokenizer import WordTokenizer


@torch.inference_mode()
def image_vectors(clip: Clip, data: Data) -> Tensor:
    """Unit vectors (2n, D): every drawing by each procedure."""
    parts = []
    for name, (_, normalised) in PROCEDURES.items():
        planes = torch.from_numpy(data.planes[name]).float()
        parts += [F.normalize(clip.image_encoder(normalised(part)), dim=-1) for part in planes.split(64)]
    return torch.cat(parts)


def reread(
    clip: Clip, tokenizer: WordTokenizer, data: Data, log_scale: float, *, steps: int, batch: int, seed: int, rate: float
) -> None:
    """Train the text tower in place, with the scale as it is."""
    rng = np.random.default_rng([seed, 2])
    vectors, truth = image_vectors(clip, data).clone(), torch.from_numpy(data.truth).float()
    losses, scale = Losses(clip, tokenizer, rng, more=True), torch.tensor(math.exp(log_scale))
    optimiser = torch.optim.AdamW(clip.text_encoder.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.08, cycle_momentum=False)
    started = time.monotonic()
    for step in range(steps):
        chosen = rng.integers(len(vectors), size=batch)
        true = truth[chosen % len(truth)]
        pair, choice = losses.of_sentences(vectors[chosen], true, scale)
        loss = pair + 0.3 * choice
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(clip.text_encoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 200 == 0 or step + 1 == steps:
            spent = time.monotonic() - started
            print(f"step {step + 1} of {steps}, {spent:.0f} s: pair {pair.item():.3f} choice {choice.item():.3f}", flush=True)


def main() -> None:
    """Read the first stage's files, train, write them again."""
    parser = argparse.ArgumentParser(description="teach the demonstration pair's text tower more wordings")
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=1_600)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=model.HERE)
    arguments = parser.parse_args()
    weights, words = arguments.folder / model.WEIGHTS.name, arguments.folder / model.VOCABULARY.name
    clip, tokenizer = model.open_pair(weights, words)
    data = render(arguments.images, clip.config.image_size)
    print(f"{arguments.images} radiographs drawn", flush=True)
    log_scale = model.read_scale(weights)
    reread(
        clip, tokenizer, data, log_scale, steps=arguments.steps, batch=arguments.batch, seed=arguments.seed, rate=arguments.rate
    )
    model.save(clip, model.read_vocabulary(words), log_scale, weights, words)


if __name__ == "__main__":
    main()
