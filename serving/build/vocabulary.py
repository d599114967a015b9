"""The files that tell text's ids: found, read, checked against the checkpoint, kept in the model's record."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.build.catalogue import Entry
from serving.errors import SetupError
from serving.families.tokenizer import open_tokenizer


def find(entry: Entry, given: Path | None, checkpoints: Sequence[Path]) -> Path | None:
    """The user's file, else one of the entry's names beside the checkpoint. Raises SetupError where there is none."""
    if given is not None and not entry.tokenizer:
        raise SetupError(f"{entry.name} has a tokenizer of its own: leave --tokenizer out")
    if not entry.tokenizer or not checkpoints:
        return None
    candidates = [given] if given is not None else [path.parent / name for path in checkpoints for name in entry.tokenizer]
    for path in candidates:
        if path.is_file():
            return path
    where = f"there is no file {given}" if given is not None else "none lies beside the checkpoint: give --tokenizer FILE"
    raise SetupError(f"{entry.name} needs {' or '.join(entry.tokenizer)}; {where}")


def read(path: Path | None, kind: str, rows: int) -> dict[str, Any]:
    """The options of a tokenizer: its kind, "wordpiece" or "siglip", and its vocabulary.

    `rows`: how many ids the checkpoint knows. Raises SetupError where the file is another model's.
    """
    if path is None:
        raise SetupError("the tokenizer's file is missing: give --tokenizer FILE")
    try:
        vocabulary = _words(path) if kind == "wordpiece" else base64.b64encode(path.read_bytes()).decode()
        options = {"tokenizer": kind, "vocabulary": vocabulary}
        size = open_tokenizer(options).vocab_size
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as exc:
        raise SetupError(f"tokenizer {path.name} cannot be read: give the checkpoint's own") from exc
    if size != rows:
        raise SetupError(f"tokenizer {path.name} has {size} ids and the checkpoint {rows}: they do not belong together")
    return options


def _words(path: Path) -> list[str]:
    """The pieces by id, of a `vocab.txt` or of a `tokenizer.json`."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text.removesuffix("\n").split("\n")
    ids: Mapping[str, int] = json.loads(text)["model"]["vocab"]
    words = sorted(ids, key=lambda word: ids[word])
    if [ids[word] for word in words] != list(range(len(words))):
        raise ValueError("ids with gaps")
    return words
