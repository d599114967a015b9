"""MedSAM2's engines: names, tensors, shapes."""

from __future__ import annotations

from serving.engines.engine import EngineSpec, TensorSpec
from serving.families.medsam2.memory import MOST_POINTERS, RECENT_MASKS
from serving.manifest import Manifest, engine_name

IMAGE_SIZE = 512
"""Side of the model's square frame, pixels, where the record of a build says no other."""
WIDTH, MEMORY = 256, 64
"""Channels of an object pointer, and of a memory's token."""
PARTS = ("image_encoder", "mask_decoder", "mask_refiner", "mask_pointer", "mask_tracker", "memory_encoder")
OBJECTS_AXIS = 1
"""Every tensor of a decoding part is one image's (leading axis 1), then its objects."""
OBJECTS, TOKENS = (1, 1, 16), (2, 3, 67)
"""Least, usual and most: objects of a call, also of joined calls (`engines.line`); tokens of an object with its pad."""
MEMORIES, POINTERS = (1, 1 + RECENT_MASKS, 1 + RECENT_MASKS), (1, MOST_POINTERS, MOST_POINTERS)
"""The same of what is remembered of an object."""
POINTS = TensorSpec("points", "float32", (-1, -1, 2), (OBJECTS, TOKENS))
LABELS = TensorSpec("labels", "int64", (-1, -1), (OBJECTS, TOKENS))


def image_size(manifest: Manifest) -> int:
    """Side of the model's frame, pixels."""
    return int(manifest.options.get("image_size", IMAGE_SIZE))


def features(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """One image: x, the image embedding as tokens; s1 and s0, finer levels. In the order of a slot.

    Who reads less reads the first of them: offsets within a slot are counted from the reader's own list.
    """
    grid = image_size(manifest) // 16
    return (
        TensorSpec("x", "float32", (grid * grid, WIDTH)),
        TensorSpec("s1", "float32", (WIDTH // 4, 2 * grid, 2 * grid)),
        TensorSpec("s0", "float32", (WIDTH // 8, 4 * grid, 4 * grid)),
    )


def specs(manifest: Manifest) -> dict[str, EngineSpec]:
    """part -> spec.

    Decoding parts give four masks an object: the one of an unambiguous prompt, then three candidates. Points are pixels of the
    model frame; labels -1 pad, 0, 1, 2 top-left, 3 bottom-right. `places`, `ages`: see `memory`.
    """
    side = image_size(manifest)
    grid = side // 16
    held = features(manifest)
    logits = TensorSpec("logits", "float32", (-1, 1, 4 * grid, 4 * grid), (OBJECTS,))
    mask = TensorSpec("mask", "float32", (-1, 1, side, side), (OBJECTS,))
    decoded = (
        TensorSpec("masks", "float32", (-1, 4, 4 * grid, 4 * grid)),
        TensorSpec("ious", "float32", (-1, 4)),
        TensorSpec("pointers", "float32", (-1, 4, WIDTH)),
        TensorSpec("score", "float32", (-1, 1)),
    )
    remembered = (
        TensorSpec("memories", "float32", (-1, -1, grid * grid, MEMORY), (OBJECTS, MEMORIES)),
        TensorSpec("places", "int64", (-1, -1), (OBJECTS, MEMORIES)),
        TensorSpec("pointers_given", "float32", (-1, -1, WIDTH), (OBJECTS, POINTERS)),
        TensorSpec("ages", "float32", (-1, -1), (OBJECTS, POINTERS)),
    )

    def spec(
        part: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...] = decoded, reads: int = len(held)
    ) -> EngineSpec:
        return EngineSpec(engine_name(manifest.model, part), inputs, outputs, reads=held[:reads], join=OBJECTS_AXIS)

    encoder = engine_name(manifest.model, "image_encoder")
    return {
        "image_encoder": EngineSpec(encoder, (TensorSpec("image", "float32", (3, side, side)),), (), writes=held),
        "mask_decoder": spec("mask_decoder", (POINTS, LABELS)),
        "mask_refiner": spec("mask_refiner", (POINTS, LABELS, logits)),
        "mask_pointer": spec("mask_pointer", (mask,), (TensorSpec("pointer", "float32", (-1, WIDTH)),)),
        "mask_tracker": spec("mask_tracker", remembered),
        "memory_encoder": spec(
            "memory_encoder",
            (logits, *(TensorSpec(name, "float32", (-1, 1), (OBJECTS,)) for name in ("prompted", "score"))),
            (TensorSpec("memory", "float32", (-1, grid * grid, MEMORY)),),
            reads=1,
        ),
    }
