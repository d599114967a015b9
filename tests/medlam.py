"""A small seeded MedLAM in the published layout."""

import torch

from serving.build.nets.medlam import MedLam


def small_medlam(base=2, seed=11):
    """State dict with DataParallel's prefix."""
    generator = torch.Generator().manual_seed(seed)
    net = MedLam(base, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            spread = 0.3 if parameter.ndim > 1 else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
        net.fc1.weight.mul_(0.1)
    return {f"module.{key}": value for key, value in net.state_dict().items()}
