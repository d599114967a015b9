"""Seeded weights in which nothing is zero that a checkpoint's training would have moved: positions, biases, BN statistics."""

import torch


def stir(module, seed=7, spread=0.05):
    """Move every parameter and running statistic of a module, in place, and put it in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = spread if parameter.ndim > 1 else 0.2
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()


def pixels(rows, side, seed=5):
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(seed))


def ids(rows, length, vocabulary, lengths, seed=3):
    """(rows, length) int64: a text of each length, then zeros."""
    made = torch.randint(1, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))
    for row, count in enumerate(lengths):
        made[row, count:] = 0
    return made


def apart(given, wanted):
    """The largest difference, relative to the scale of what is wanted."""
    assert given.shape == wanted.shape
    assert wanted.std() > 0.01
    return float((given - wanted).abs().max() / wanted.abs().max())
