"""Pools: one kind of model each, as Ray Serve deployments over a plain class."""
