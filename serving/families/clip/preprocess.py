"""Pixels -> the image tower's input: OpenAI's own, which its kin share."""

from __future__ import annotations

from serving.families.centre_crop import MEAN as MEAN
from serving.families.centre_crop import STD as STD
from serving.families.centre_crop import prepare as prepare

PREPROCESSING_ID = "clip/1"
"""Changes whenever the same picture gives other numbers."""
