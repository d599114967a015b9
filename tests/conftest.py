"""Fixtures that several kinds of tests share: the real server, started once as a user starts it."""

import pytest
from running import Medserve


@pytest.fixture(scope="session")
def server():
    """`medserve up` with every model that `make build` builds."""
    with Medserve() as running:
        yield running
