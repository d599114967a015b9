"""FastAPI by somebody who measured: an image is encoded once and kept in a dict, prompts name it. One process, uvloop, orjson.

PEER_ENGINES=stock or ours uvicorn fastapi_tuned:app --loop uvloop --http httptools

What it leaves out: limits, deadlines, a bound on the dict, single-flight, a second replica (the dict is the process's own).
"""

import itertools
import json
from typing import Annotated

import orjson
from fastapi import FastAPI, File, Form, Request, Response
from litemedsam import Model
from starlette.concurrency import run_in_threadpool

app, model = FastAPI(), Model()
images, numbers = {}, itertools.count()


@app.get("/health")
async def health():
    """It is up."""
    return {}


@app.post("/images")
def encode(image: Annotated[bytes, File()]):
    """Encode ahead."""
    name = str(next(numbers))
    images[name] = model.encode(image)
    return {"image_id": name}


@app.post("/segment")
async def segment(request: Request):
    """{"image_id": ..., "box": [...], "points": [...]}."""
    prompt = orjson.loads(await request.body())
    made = await run_in_threadpool(model.segment, images[prompt["image_id"]], prompt["box"], prompt["points"])
    return Response(orjson.dumps(made), media_type="application/json")


@app.post("/first")
def first(image: Annotated[bytes, File()], request: Annotated[str, Form()]):
    """The image itself with its first prompt."""
    prompt = json.loads(request)
    encoded = images[str(next(numbers))] = model.encode(image)
    return model.segment(encoded, prompt["box"], prompt["points"])
