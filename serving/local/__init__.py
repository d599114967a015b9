"""One machine: the embedded Triton, a local Ray, and the commands over them."""
