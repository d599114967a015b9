"""MedLSAM: structures found in a volume by a support set of labelled volumes, then segmented on its slices."""
