"""CLIP ViT-B/32 at full size with seeded random weights, built as a user's own checkpoint would be. For speed only.

The bench serves it from a repository of its own: links to every built model, and this one beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving.build.weights import Say
from serving.errors import SetupError

MODEL = "clip"
SEED = 32


def write_checkpoint(path: Path) -> None:
    """A state dict in OpenAI's layout, in safetensors. The same tensors for the same PyTorch."""
    import torch
    from safetensors.torch import save_file

    from serving.build.nets import clip

    sizes = clip.ClipConfig(
        embed_dim=512, image_size=224, patch=32, vision_width=768, vision_layers=12, vision_heads=12,
        context_length=77, vocab_size=49408, text_width=512, text_layers=12, text_heads=8,
    )  # fmt: skip
    torch.manual_seed(SEED)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: tensor.contiguous().clone() for name, tensor in clip.create(sizes).state_dict().items()}, part)
    part.replace(path)


def repository(folder: Path, built: Path, say: Say) -> Path:
    """The bench's repository under `folder`: what `built` holds, linked, and CLIP. Built where something is missing or old."""
    made = folder / "repository"
    made.mkdir(parents=True, exist_ok=True)
    for entry in built.iterdir():
        ours = entry.name.startswith(f"{MODEL}_") or entry.name == f"{MODEL}.json" or entry.name.startswith(".")
        link = made / entry.name
        if not ours and not (link.is_symlink() and link.readlink() == entry):
            link.unlink(missing_ok=True)
            link.symlink_to(entry)
    for link in made.iterdir():
        if link.is_symlink() and not link.exists():
            link.unlink()
    checkpoint = folder / "clip-vit-b32-random.safetensors"
    if not checkpoint.exists():
        say("drawing the weights of CLIP ViT-B/32, once")
        write_checkpoint(checkpoint)
    say("building CLIP ViT-B/32 where it is not built")
    command = [sys.executable, "-m", "serving", "models", "build", MODEL, "--checkpoint", str(checkpoint)]
    environ = {**os.environ, "MEDSERVE_REPOSITORY__PATH": str(made)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"CLIP ViT-B/32 could not be built: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return made
