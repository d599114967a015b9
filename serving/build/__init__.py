"""Weights, networks, exports: from a checkpoint to engines in the model repository. The only place that imports torch."""
