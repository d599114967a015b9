import pytest

from tests.unit.edge.fakes import FakeBrain
from tests.unit.edge.servers import serve
from tests.unit.edge.volumes.asking import jobs_of, settings, wait_for


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spool")
    with serve(settings(folder, max_body_bytes=3_000_000)) as served:
        served.folder = folder
        yield served


@pytest.fixture
def served(both):
    both.brain.__dict__.update(FakeBrain().__dict__)
    yield both
    wait_for(lambda: all((job / "ended").exists() for job in jobs_of(both)))
    for job in jobs_of(both):
        for file in job.iterdir():
            file.unlink()
        job.rmdir()
