"""The families that can be served: name -> declaration. A new family is one folder and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from serving.families.biomedclip.family import DECLARATION as BIOMEDCLIP
from serving.families.chexzero.family import DECLARATION as CHEXZERO
from serving.families.clip.family import DECLARATION as CLIP
from serving.families.family import FamilyDeclaration
from serving.families.litemedsam.family import DECLARATION as LITEMEDSAM
from serving.families.medclip.family import DECLARATION as MEDCLIP
from serving.families.medlsam.family import DECLARATION as MEDLSAM
from serving.families.medsam.family import DECLARATION as MEDSAM
from serving.families.medsam2.family import DECLARATION as MEDSAM2
from serving.families.medsiglip.family import DECLARATION as MEDSIGLIP

FAMILIES: Mapping[str, FamilyDeclaration] = {
    LITEMEDSAM.name: LITEMEDSAM,
    MEDSAM.name: MEDSAM,
    MEDLSAM.name: MEDLSAM,
    CLIP.name: CLIP,
    CHEXZERO.name: CHEXZERO,
    MEDCLIP.name: MEDCLIP,
    BIOMEDCLIP.name: BIOMEDCLIP,
    MEDSIGLIP.name: MEDSIGLIP,
    MEDSAM2.name: MEDSAM2,
}
