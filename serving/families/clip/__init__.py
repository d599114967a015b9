"""CLIP: pictures and labels or texts -> scores and vectors, as OpenAI published it."""
