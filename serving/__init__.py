"""medserve: the serving cluster for the promptable foundation models of medical imaging.

The map. A request walks through five stations, and the folders are named after them:

1. ``edge``      wire <-> domain. HTTP and gRPC are two thin fronts over one brain. Knows bytes and status codes, no model.
2. ``router``    which pool, and may it enter? Pure functions of values: limits, deadline, dispatch, affinity key.
3. ``pools``     Ray Serve deployments: shells of a few lines around plain objects.
4. ``families``  how one kind of model answers a request: preprocess -> encode -> decode -> postprocess.
5. ``engines``   the backend boundary: tensors in, tensors out, with a deadline.

Beside the path: ``domain`` (the frozen nouns), ``imaging`` (bytes <-> pixels), ``embeddings`` (the Features store),
``build`` (checkpoint -> engine), ``local`` (the embedded Triton and Ray), ``telemetry`` (metrics, logs), ``client`` (the
Python client). ``app`` is the composition root, ``cli`` the command line, ``settings`` the one tree of settings, and
``errors`` the closed set of faults.
"""

__version__ = "0.1.0"
