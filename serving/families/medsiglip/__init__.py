"""MedSigLIP: medical pictures and labels or texts -> a score for each pair, and vectors."""
