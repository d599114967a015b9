"""Networks written here whose state-dict keys are those of the published checkpoints."""
