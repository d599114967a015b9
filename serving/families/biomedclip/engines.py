"""The two towers: names, tensors, shapes."""

from __future__ import annotations

from serving.families.two_towers import specs as specs
