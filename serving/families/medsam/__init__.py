"""MedSAM and SAM ViT-B, L, H: boxes, clicks and earlier logits on one picture -> masks."""
