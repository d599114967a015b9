"""The brain behind both fronts: dispatch, admission, affinity."""
