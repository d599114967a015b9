"""The backend boundary: tensors in, tensors out, with a deadline. The only folder that imports tritonclient."""
