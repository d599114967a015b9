"""What is noted though nobody asks."""

import asyncio
from contextlib import suppress

from serving.edge.desk import Desk
from serving.settings import Settings
from tests.unit.edge.fakes import FakeBrain, Notes


class Turning(FakeBrain):
    """Cannot be asked at first, then is ready and not ready in turn."""

    asked = 0

    async def readiness(self):
        self.asked += 1
        if self.asked == 1:
            raise OSError("no way to the pool")
        self.ready = self.asked % 2 == 0
        return await super().readiness()


async def test_readiness_is_noted_again_and_again_whoever_asks(caplog):
    brain, seen, enough = Turning(), [], asyncio.Event()

    class Told(Notes):
        def observe_ready(self, pool, ready):
            seen.append((pool, ready))
            if len(seen) == 3:
                enough.set()

    noting = asyncio.create_task(Desk(brain, Settings(), Told()).keep_noting(every_s=0))
    await enough.wait()
    noting.cancel()
    with suppress(asyncio.CancelledError):
        await noting
    assert seen[:3] == [("adaptive", True), ("adaptive", False), ("adaptive", True)]
    assert "could not be asked" in caplog.text
