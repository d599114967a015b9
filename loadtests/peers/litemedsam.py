"""LiteMedSAM as the peers use it: PNG -> tensor, prompt -> tokens, engines, logits -> COCO run lengths. No web framework here.

Stock engines are the published graph in ONNX under ONNX Runtime; ours are the product's engine files, opened as it opens them.
Every peer masks, resizes and answers alike (run lengths from pycocotools), so that only the serving differs.

Environment: PEER_ENGINES (stock or ours), PEER_STOCK (folder of the ONNX files), PEER_REPOSITORY (the model repository),
PEER_THREADS (0: all cores).
"""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco

from serving.bench import bare


class Model:
    """`encode` an image, `segment` with a prompt. One call an engine at a time, with all cores: the fastest way on a CPU."""

    def __init__(self):
        threads = int(os.environ.get("PEER_THREADS", "0")) or bare.cores()
        if os.environ.get("PEER_ENGINES", "stock") == "ours":
            engines = bare.Segmenter(Path(os.environ["PEER_REPOSITORY"]), threads=threads)
            self._encode, self._decode = engines.encode, engines.decode
        else:
            folder = Path(os.environ["PEER_STOCK"])
            encoder = bare.OnnxRuntime(folder / "image_encoder.onnx", threads)
            decoder = bare.OnnxRuntime(folder / "mask_decoder.onnx", threads)
            self._encode = lambda tensor: encoder.infer({"image": tensor})
            self._decode = lambda features, points, labels: decoder.infer(
                {**features, "points": points[0], "labels": labels[0]}
            )
        self._encoding, self._decoding = threading.Lock(), threading.Lock()

    def encode(self, file):
        """Bytes of a picture -> what `segment` wants of it."""
        tensor, content, size = read(file)
        with self._encoding:
            return self._encode(tensor), content, size

    def segment(self, image, box, points=()):
        """Run lengths (text) and the estimated IoU."""
        features, content, size = image
        with self._decoding:
            made = self._decode(features, *bare.tokens(box, points, max(size)))
            logits, score = np.array(made["mask"]).reshape(-1, 256, 256)[0], float(made["iou"].flat[0])
        return {**answer(logits, content, size), "score": score}


def read(file):
    """Bytes of a picture -> (1, 3, 256, 256) float32, (width, height) of the picture in it, (width, height) of the picture."""
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_GRAYSCALE)
    tensor, content = bare.prepare(pixels)
    return tensor, content, pixels.shape[::-1]


def answer(logits, content, size):
    """(256, 256) logits -> the mask's run lengths in the picture's own pixels."""
    mask = bare.finish(logits, content, size).view(np.uint8)
    counts = coco.encode(cv2.transpose(mask).T)["counts"].decode("ascii")
    return {"size": [size[1], size[0]], "counts": counts}
