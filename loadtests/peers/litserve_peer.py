"""LitServe with a dict of encoded images. The dict lives in the one worker: a second worker would not have it.

python litserve_peer.py PORT
"""

import base64
import itertools
import sys

import litserve as ls
from litemedsam import Model


class Segment(ls.LitAPI):
    """JSON: `image` (base64) or `image_id`, with `box` and `points` or without."""

    def setup(self, device):
        """In the worker."""
        self.model, self.images, self.numbers = Model(), {}, itertools.count()

    def predict(self, request):
        """Encode where there is an image, segment where there is a box."""
        name = request.get("image_id")
        if name is None:
            name = str(next(self.numbers))
            self.images[name] = self.model.encode(base64.b64decode(request["image"]))
        if "box" not in request:
            return {"image_id": name}
        return self.model.segment(self.images[name], request["box"], request["points"])


if __name__ == "__main__":
    server = ls.LitServer(Segment(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning")
