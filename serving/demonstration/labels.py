"""The findings that the demonstration pair knows, as served."""

from __future__ import annotations

EFFUSION = "pleural effusion"
CARDIOMEGALY = "cardiomegaly"
PNEUMOTHORAX = "pneumothorax"
NODULE = "lung nodule"
CONSOLIDATION = "consolidation"
DEVICE = "support device"
EDEMA = "edema"

LABELS = (EFFUSION, CARDIOMEGALY, PNEUMOTHORAX, NODULE, CONSOLIDATION, DEVICE, EDEMA)
