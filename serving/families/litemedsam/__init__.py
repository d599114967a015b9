"""LiteMedSAM: boxes, clicks and earlier logits on one picture -> masks."""
