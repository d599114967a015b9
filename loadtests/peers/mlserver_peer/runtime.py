"""MLServer: a runtime of one's own over the Open Inference Protocol, with a dict of encoded images.

mlserver start mlserver_peer   (PYTHONPATH: this folder and the one above)
"""

import base64
import itertools
import json

from litemedsam import Model
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from starlette.concurrency import run_in_threadpool


class Segment(MLModel):
    """Inputs: `image` (base64) or `image_id`, and `prompt` (JSON) or none. Output: `answer`, JSON."""

    async def load(self) -> bool:
        """Once."""
        self.model, self.images, self.numbers = Model(), {}, itertools.count()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The work in a thread, so that the loop goes on."""
        given = {each.name: each.data.root[0] for each in payload.inputs}
        made = await run_in_threadpool(self._work, given)
        output = ResponseOutput(name="answer", shape=[1], datatype="BYTES", data=[json.dumps(made)])
        return InferenceResponse(model_name=self.name, outputs=[output])

    def _work(self, given):
        name = given.get("image_id")
        if name is None:
            name = str(next(self.numbers))
            self.images[name] = self.model.encode(base64.b64decode(given["image"]))
        if "prompt" not in given:
            return {"image_id": name}
        prompt = json.loads(given["prompt"])
        return self.model.segment(self.images[name], prompt["box"], prompt["points"])
