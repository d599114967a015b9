"""Published checkpoints whose file tells by its digest how it was trained to see images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from serving.build.catalogue import Entry
from serving.build.weights import Checkpoint
from serving.errors import SetupError

SHA256 = {
    "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912": "sam",  # sam_vit_b_01ec64.pth
    "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622": "sam",  # sam_vit_l_0b3195.pth
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e": "sam",  # sam_vit_h_4b8939.pth
}
"""sha256 -> preprocessing. The files that facebookresearch/segment-anything's README links."""
MD5 = {"3bb6db55bd0c9ca30b61248bca72f8d6": "july-2023"}
"""md5 -> preprocessing. `medsam_vit_b.pth` of Zenodo record 10689643, which publishes this sum and no other."""


def preprocessing(entry: Entry, asked: str, sources: Sequence[Checkpoint]) -> str:
    """The preprocessing of a build: told by the file, else as asked, else the entry's usual or only one; never guessed.

    "" for an entry that has none to choose. Raises SetupError: unknown, contradicted by the file, or neither told nor asked.
    """
    if asked and asked not in entry.preprocessings:
        known = f"it has: {', '.join(entry.preprocessings)}" if entry.preprocessings else "it has one only"
        raise SetupError(f"{entry.name} has no preprocessing {asked}; {known}")
    if not entry.preprocessings:
        return ""
    for source in sources:
        told = SHA256.get(source.sha256) or MD5.get(_md5(source.path))
        if told and told not in entry.preprocessings:
            raise SetupError(f"{source.path.name} is published with the preprocessing {told}, which {entry.name} does not have")
        if told and asked and asked != told:
            raise SetupError(f"{source.path.name} is published with the preprocessing {told}, not {asked}")
        asked = told or asked
    asked = asked or entry.usual
    if not asked and len(entry.preprocessings) > 1:
        choices = " or ".join(f"--preprocessing {name}" for name in entry.preprocessings)
        raise SetupError(f"{entry.name} cannot tell how this checkpoint was trained to see images: say {choices}")
    return asked or entry.preprocessings[0]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
