"""Plain Triton: our engine files behind its Python backend. The client does the rest: PNG, tokens, mask, run lengths.

Two ways: `message`, the Features come to the client and go back with every prompt; `shm`, they lie in registered shared memory,
which only a client on the same machine can do. Eight users are eight threads of one client process.
"""

import threading
import time
from contextlib import ExitStack

import litemedsam

from serving.bench import bare
from serving.bench.plain_triton import Caller


class User:
    """One client with one connection."""

    def __init__(self, address, way, label):
        self._caller, self._way = Caller(address, label), way

    def show(self, file):
        """Encode; what `ask` wants of the image."""
        tensor, content, size = litemedsam.read(file)
        features = self._caller.encode(tensor)
        placed = self._caller.place(features) if self._way == "shm" else self._caller.sent(features)
        return placed, content, size

    def ask(self, image, prompt):
        """Run lengths of one prompt."""
        placed, content, size = image
        logits = self._caller.decode(placed, *bare.tokens(prompt.box, prompt.points, max(size)))
        return litemedsam.answer(logits[0, 0, 0], content, size)["counts"].encode()

    def forget(self):
        """Remove the images' memory."""
        self._caller.forget()

    def close(self):
        """Hang up."""
        self._caller.close()


def closed(address, way, pictures, users, seconds):
    """Seconds of each prompt, and of the whole stretch: `users` threads, each on encoded pictures, one prompt after another."""
    spent = []
    with ExitStack() as stack:
        clients = [User(address, way, f"u{n}_") for n in range(users)]
        for client in clients:
            stack.callback(client.close)
        shown = [client.show(pictures[n % len(pictures)].png) for n, client in enumerate(clients)]
        began = time.perf_counter()

        def work(number):
            prompts = pictures[number % len(pictures)].prompts
            turn = number
            while time.perf_counter() - began < seconds:
                start = time.perf_counter()
                clients[number].ask(shown[number], prompts[turn % len(prompts)])
                spent.append(time.perf_counter() - start)
                turn += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(users)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return spent, time.perf_counter() - began


def firsts(address, way, pictures):
    """Seconds of the first mask of each picture."""
    spent, client = [], User(address, way, "f_")
    try:
        for picture in pictures:
            start = time.perf_counter()
            client.ask(client.show(picture.png), picture.prompts[0])
            spent.append(time.perf_counter() - start)
            client.forget()
    finally:
        client.close()
    return spent
