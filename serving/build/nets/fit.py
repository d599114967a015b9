"""Strict loading: a checkpoint of another model is refused with the first tensors that differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from serving.errors import SetupError

Net = TypeVar("Net", bound=nn.Module)
SHOWN = 3


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks lie under `prefix`."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps `found` from loading strictly, one phrase a tensor, in order of name."""
    phrases = []
    for key in sorted(expected.keys() | found.keys()):
        if key not in found:
            phrases.append(f"{key} is missing")
        elif key not in expected:
            phrases.append(f"{key} is unexpected")
        elif expected[key].shape != found[key].shape:
            phrases.append(f"{key} has shape {tuple(found[key].shape)}, not {tuple(expected[key].shape)}")
    return phrases


def shape(state: Mapping[str, Tensor], key: str, layout: str) -> tuple[int, ...]:
    """The shape of a tensor. Raises SetupError where there is none of that name."""
    if key not in state:
        raise SetupError(f"this is not {layout}: it has no tensor named {key}")
    return tuple(state[key].shape)


def sized(make: Callable[[], Net], layout: str) -> Net:
    """A net whose sizes were read off a checkpoint. Raises SetupError where no net has such sizes."""
    try:
        return make()
    except (ValueError, IndexError, RuntimeError, ZeroDivisionError, AssertionError) as exc:
        raise SetupError(f"this is not {layout}: its tensors have sizes that do not go together") from exc


def fit(net: Net, state: Mapping[str, Tensor], layout: str, prefix: str = "") -> Net:
    """The net with the checkpoint's weights in float32, in evaluation mode.

    `prefix`: before the names that the error shows. Raises SetupError that names the first tensors which are missing,
    unexpected or of another shape.
    """
    if found := differences(net.state_dict(), state):
        raise SetupError(f"this is not {layout}: {'; '.join(prefix + phrase for phrase in found[:SHOWN])}")
    net.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    return net.eval()


def under(state: Mapping[str, Tensor], prefix: str, *, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors below a prefix, named from there. `without`: beginnings or ends of names that are left out."""
    named = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in named.items() if not key.startswith(without) and not key.endswith(without)}


def scalar(state: Mapping[str, Tensor], key: str, layout: str) -> float:
    """A tensor of one number. Raises SetupError."""
    if torch.Size(shape(state, key, layout)).numel() != 1:
        raise SetupError(f"this is not {layout}: {key} has shape {tuple(state[key].shape)}, not one number")
    return float(state[key].reshape(()))
