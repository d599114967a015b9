"""MedSAM2: boxes, clicks, earlier logits or a mask on one slice -> masks, on one picture or through a volume."""
