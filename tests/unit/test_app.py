import pytest

from serving import app
from serving.settings import RouterSettings, Settings


@pytest.mark.parametrize(("shape", "replicas", "sharers"), [("together", 2, 2), ("together", 1, 1), ("apart", 2, 1)])
def test_replicas_that_stand_before_one_engine_divide_its_places(shape, replicas, sharers):
    assert app._sharers(Settings(shape=shape, router=RouterSettings(replicas=replicas))) == sharers
