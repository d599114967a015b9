from collections.abc import Iterator

import pytest

from serving.settings import LimitSettings, Settings, VolumeSettings
from tests.unit.edge.fakes import FakeBrain
from tests.unit.edge.servers import Served, serve

LIMITS = LimitSettings(max_body_bytes=1_000_000)


@pytest.fixture(scope="session")
def _both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    volumes = VolumeSettings(spool=tmp_path_factory.mktemp("spool"))
    with serve(Settings(limits=LIMITS, volumes=volumes)) as served:
        yield served


@pytest.fixture
def served(_both: Served) -> Served:
    """Both fronts, the brain as new."""
    _both.brain.__dict__.update(FakeBrain().__dict__)
    _both.notes.requests.clear()
    _both.notes.stages.clear()
    return _both
