"""What each peer is: how it is started and asked, and what it is in a line."""

import base64
import json
from dataclasses import dataclass

from serving.bench import asking
from serving.bench.asking import Ask

OURS = "medserve"


def json_ask(path, body, kind, golden=b""):
    """A JSON call."""
    data = json.dumps(body).encode()
    return Ask(kind, asking.head(path, b"application/json", len(data)), data, golden=golden)


def file_ask(path, file, request, kind, golden=b""):
    """A multipart call: `image`, and `request` as a text field where there is one."""
    mark = asking.BOUNDARY
    part = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="i.png"\r\nContent-Type: image/png\r\n\r\n%s\r\n'
    data = part % (mark, file)
    if request is not None:
        text = b'--%s\r\nContent-Disposition: form-data; name="request"\r\n\r\n%s\r\n'
        data += text % (mark, json.dumps(request).encode())
    data += b"--%s--\r\n" % mark
    return Ask(kind, asking.head(path, asking.MULTIPART, len(data)), data, golden=golden)


def said(prompt):
    """A prompt as the peers take it."""
    return {"box": prompt.box, "points": prompt.points}


@dataclass(frozen=True)
class Peer:
    """How it is started and asked. `command` takes {python}, {bin} and {port}; `ready`: a path that answers 200."""

    name: str
    venv: str
    command: str
    engines: str
    ready: str
    encode: object  # png -> Ask, or None where there is nothing to keep
    prompt: object  # (picture, image id or None, prompt) -> Ask
    first: object  # (png, prompt) -> Ask
    tidy: object = staticmethod(lambda body: body)  # the answer's JSON -> {"image_id": ...} or {"counts": ...}


def fastapi(name, module, engines, kept):
    """The FastAPI peers differ in their module and engines."""
    return Peer(
        name, "fastapi", "{bin}/uvicorn " + module + ":app --host 127.0.0.1 --port {port} --loop uvloop --http httptools"
        " --no-access-log --log-level warning", engines, "/health",
        (lambda png: file_ask("/images", png, None, "encode")) if kept else None,
        (lambda picture, image, prompt: json_ask("/segment", {"image_id": image, **said(prompt)}, "prompt"))
        if kept else (lambda picture, image, prompt: file_ask("/segment", picture.png, said(prompt), "prompt")),
        lambda png, prompt: file_ask("/first" if kept else "/segment", png, said(prompt), "first"),
    )  # fmt: skip


def b64(data):
    """Text of bytes."""
    return base64.b64encode(data).decode("ascii")


def v2(kind, **inputs):
    """A call of the Open Inference Protocol with strings."""
    tensors = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in inputs.items()]
    return json_ask("/v2/models/litemedsam/infer", {"inputs": tensors}, kind)


PEERS = (
    fastapi("fastapi-naive", "fastapi_naive", "stock", kept=False),
    fastapi("fastapi-tuned-stock", "fastapi_tuned", "stock", kept=True),
    fastapi("fastapi-tuned-ours", "fastapi_tuned", "ours", kept=True),
    Peer(
        "litserve", "litserve", "{python} litserve_peer.py {port}", "ours", "/health",
        lambda png: json_ask("/predict", {"image": b64(png)}, "encode"),
        lambda picture, image, prompt: json_ask("/predict", {"image_id": image, **said(prompt)}, "prompt"),
        lambda png, prompt: json_ask("/predict", {"image": b64(png), **said(prompt)}, "first"),
    ),
    Peer(
        "bentoml", "bentoml", "{bin}/bentoml serve -q bentoml_peer:Segment --host 127.0.0.1 --port {port}", "ours",
        "/readyz",
        lambda png: file_ask("/encode", png, None, "encode"),
        lambda picture, image, prompt: json_ask("/segment", {"image_id": image, **said(prompt)}, "prompt"),
        lambda png, prompt: file_ask("/first", png, said(prompt), "first"),
    ),
    Peer(
        "mlserver", "mlserver", "{bin}/mlserver start mlserver_peer", "ours", "/v2/models/litemedsam/ready",
        lambda png: v2("encode", image=b64(png)),
        lambda picture, image, prompt: v2("prompt", image_id=image, prompt=json.dumps(said(prompt))),
        lambda png, prompt: v2("first", image=b64(png), prompt=json.dumps(said(prompt))),
        lambda body: json.loads(body["outputs"][0]["data"][0]),
    ),
)  # fmt: skip
TRITONS = ("triton-message", "triton-shm")
ABOUT = {
    OURS: "our engines, Ray Serve and Triton, Features in shared memory",
    "fastapi-naive": "ONNX Runtime fp32, every prompt encodes anew",
    "fastapi-tuned-stock": "ONNX Runtime fp32, dict of encoded images",
    "fastapi-tuned-ours": "our engines in its own process, dict of encoded images",
    "litserve": "our engines, dict in its one worker",
    "bentoml": "our engines, dict in its one worker",
    "mlserver": "our engines, dict in its one process, Open Inference Protocol in JSON",
    "triton-message": "our engines, Features sent back with every prompt; mask and run lengths made by the client",
    "triton-shm": "our engines, Features in shared memory; mask and run lengths made by the client",
}
