"""A small trained pair of towers on drawn radiographs, so that text prompts work on a machine without any other checkpoint.

It has never seen a patient and is not a medical device: read `MODEL_CARD.md`. `draw` makes the radiographs, `captions`
their reports, `train` the towers (`weights.safetensors`, `vocabulary.txt`), `evaluate` measures them.
"""
