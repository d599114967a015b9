"""Models of a plain Triton, as somebody who uses Triton without this product would write them. They run in Triton's stub."""
