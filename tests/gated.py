"""A call that waits until a test lets it go, and turns of the event loop for what is to happen meanwhile."""

import asyncio


class Gated:
    """An asynchronous function of one argument: what each call brought, and how many were cancelled.

    `answer`: of the argument, once `open` is set; `failure`: raised in its place; `held`: `open` is not set from the first.
    """

    def __init__(self, answer, failure=None, *, held=False):
        self.answer, self.failure = answer, failure
        self.calls, self.cancelled = [], 0
        self.open = asyncio.Event()
        if not held:
            self.open.set()

    async def __call__(self, given):
        self.calls.append(given)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return self.answer(given)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)
