"""Two small linear towers as engine functions: what the tests of the contrastive families serve."""

import numpy as np

WIDTH, SIDE, CONTEXT = 8, 16, 40
VOCABULARY = ("no", "a", "photo", "of", "edema", "nodule", "effusion", "sign", "there", "is")
OPTIONS = {
    "image_size": SIDE,
    "context_length": CONTEXT,
    "embed_dim": WIDTH,
    "tokenizer": "words",
    "vocabulary": list(VOCABULARY),
    "letterbox": 20,
    "logit_scale": 50.0,
    "logit_bias": -20.0,
    "ensemble": "mean",
    "sentences": 10,
    "seed": 42,
}


def seeded(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def token_table(version):
    """(100, WIDTH) float32: what each token adds to a text's vector; padding adds nothing."""
    table = seeded(100, WIDTH, seed=7 * version)
    table[0] = 0
    return table


def image_encoder(inputs, record):
    assert inputs["pixels"].shape[1:] == (3, SIDE, SIDE)
    flat = inputs["pixels"].reshape(len(inputs["pixels"]), -1)
    return {"embedding": flat @ seeded(flat.shape[1], WIDTH, seed=int(record.version))}


def text_encoder(inputs, record):
    assert 2 <= inputs["tokens"].shape[1] <= CONTEXT
    return {"embedding": token_table(int(record.version))[inputs["tokens"]].sum(axis=1)}


FUNCTIONS = {"image_encoder": image_encoder, "text_encoder": text_encoder}


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
