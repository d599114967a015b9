"""Python-based Triton backends, named as the native ones, so that one `config.pbtxt` runs here and in NVIDIA's container.

The files `<name>/model.py` are copied into a backend directory and run by Triton's stub process, not imported from here.
"""
