"""The two towers: names, tensors, shapes."""

from __future__ import annotations

from functools import partial

from serving.families import two_towers

MAX_BATCH = 8
"""At 448 pixels a picture is 1,024 tokens of 1,152 channels."""

specs = partial(two_towers.specs, max_batch=MAX_BATCH, whole=True)
