"""Labels -> one matrix of unit vectors, remembered whole and row by row."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import numpy.typing as npt

from serving.embeddings.vectors import VectorStore
from serving.errors import Fault, Kind

Vectors = npt.NDArray[np.float32]
"""(n, D) float32."""

Encode = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Texts -> (n, D) unit vectors."""

MAX_SENTENCES = 10_000
"""Most labels x templates in one call."""
ROWS_BYTES = 32 * 1024 * 1024
"""For the vectors of single labels under their templates."""
TABLES_BYTES = 32 * 1024 * 1024
"""For the matrices of whole label sets."""


class LabelTables:
    """The label vectors of one text tower. `digest`: tells its vectors from those of other checkpoints.

    Two requests that bring the same new labels at the same time make one text-tower call.
    """

    def __init__(self, digest: str, rows_bytes: int = ROWS_BYTES, tables_bytes: int = TABLES_BYTES) -> None:
        self._digest = digest
        self._rows = VectorStore(rows_bytes, math.inf)
        self._tables = VectorStore(tables_bytes, math.inf)

    async def table(self, names: Sequence[str], sets: Sequence[Sequence[str]], encode: Encode) -> Vectors:
        """(sets x labels, D) unit vectors, read-only: the labels under each template set, the first set's first.

        A row is the renormalised mean of the label's unit vectors over the set's templates. `encode` is called once, with
        the sentences of all rows that are not known yet.
        """
        found, _ = await self._tables.get_or_make(_key(self._digest, sets, names), lambda: self._stack(names, sets, encode))
        return found

    async def _stack(self, names: Sequence[str], sets: Sequence[Sequence[str]], encode: Encode) -> Vectors:
        phrases = [(templates, name) for templates in sets for name in names]
        keys = [_key(self._digest, [templates], [name]) for templates, name in phrases]

        async def rows(missing: Sequence[int]) -> list[Vectors]:
            wanted = [phrases[index] for index in missing]
            vectors = await encode([fill(template, name) for templates, name in wanted for template in templates])
            ends = np.cumsum([len(templates) for templates, _ in wanted])
            return [unit(each.mean(axis=0)) for each in np.split(vectors, ends[:-1])]

        found, _ = await self._rows.get_or_make_all(keys, rows)
        return np.stack(found)


def unit(vectors: Vectors) -> Vectors:
    """Each row divided by its L2 norm, float32."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def fill(template: str, label: str) -> str:
    """The sentence of a label. The template's one {} is replaced; nothing else in it or in the label is interpreted."""
    return template.replace("{}", label)


def check_sentences(labels: int, templates: int) -> None:
    """Refuse more sentences than a call may cost. Raises Fault(TOO_LARGE)."""
    if labels * templates > MAX_SENTENCES:
        raise Fault(Kind.TOO_LARGE, f"labels times templates may be {MAX_SENTENCES} at most", param="templates")


def _key(digest: str, sets: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([digest, sets, names]).encode()).hexdigest()
