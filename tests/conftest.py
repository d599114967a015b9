"""Fixtures that several kinds of tests share: the real server, started once as a user starts it."""

import pytest
from hypothesis import settings
from running import Medserve

# The machine is shared: how long an example takes says nothing. Equal runs try equal examples.
settings.register_profile("here", deadline=None, derandomize=True)
settings.load_profile("here")


@pytest.fixture(scope="session")
def server():
    """`medserve up` with every model that `make build` builds."""
    with Medserve() as running:
        yield running
