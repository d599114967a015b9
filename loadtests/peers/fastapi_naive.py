"""FastAPI as the usual demo has it: image and prompt come in, both networks run, a mask goes out. Every prompt encodes anew.

uvicorn fastapi_naive:app
"""

import json
from typing import Annotated

from fastapi import FastAPI, File, Form
from litemedsam import Model

app, model = FastAPI(), Model()


@app.get("/health")
def health():
    """It is up."""
    return {}


@app.post("/segment")
def segment(image: Annotated[bytes, File()], request: Annotated[str, Form()]):
    """`request`: {"box": [x0, y0, x1, y1], "points": [[x, y, label], ...]}."""
    prompt = json.loads(request)
    return model.segment(model.encode(image), prompt["box"], prompt["points"])
