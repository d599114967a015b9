"""The families that can be served: name -> declaration. A new family is one folder and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from serving.families.chexzero.family import DECLARATION as CHEXZERO
from serving.families.clip.family import DECLARATION as CLIP
from serving.families.family import FamilyDeclaration
from serving.families.litemedsam.family import DECLARATION as LITEMEDSAM
from serving.families.medsam2.family import DECLARATION as MEDSAM2

FAMILIES: Mapping[str, FamilyDeclaration] = {
    LITEMEDSAM.name: LITEMEDSAM,
    CLIP.name: CLIP,
    CHEXZERO.name: CHEXZERO,
    MEDSAM2.name: MEDSAM2,
}
