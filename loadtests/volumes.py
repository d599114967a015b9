"""A volume with several objects: the walk that encodes each slice once, against the loop that encodes it for every object.

Both run on the same engines of a server that is up (`medserve up`): the walk as one call with all objects, the loop as one call
an object, which is the published script's order of work with nothing shared. By default one object of the loop is timed and
multiplied, which is said in the output; `--whole-loop` times them all.

    python -m loadtests.volumes --slices 100 --side 512 --objects 6
"""

from __future__ import annotations

import argparse
import gzip
import json
import time

import nibabel
import numpy as np

from serving.client import Client


def scan(slices: int, side: int, objects: int) -> tuple[bytes, list[list[float]]]:
    """A gzipped NIfTI of bright balls that wander through all slices, and a box for each over the whole volume."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    volume = np.empty((side, side, slices), np.int16)
    radius = side / 16
    centres = [(side * (0.2 + 0.3 * (n % 3)), side * (0.25 + 0.4 * (n // 3 % 2))) for n in range(objects)]
    for k in range(slices):
        drift = radius * k / slices
        picture = rng.normal(100, 15, (side, side)).astype(np.float32)
        for cx, cy in centres:
            picture += 300 * (np.hypot(x - cx - drift, y - cy) < radius)
        volume[:, :, k] = picture.T
    boxes = [[cx - radius - 2, cy - radius - 2, 0, cx + 2 * radius + 2, cy + radius + 2, slices - 1] for cx, cy in centres]
    return gzip.compress(nibabel.Nifti1Image(volume, np.eye(4)).to_bytes(), 1), boxes


def seconds(client: Client, volume: bytes, boxes: list[list[float]]) -> tuple[float, np.ndarray]:
    """Time of one call, and its label map."""
    start = time.perf_counter()
    found = client.segment_volume(volume, boxes=boxes)
    spent = time.perf_counter() - start
    return spent, np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(found.data)).dataobj)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--objects", type=int, default=6)
    parser.add_argument("--whole-loop", action="store_true", help="time the loop for every object, not for one")
    said = parser.parse_args()
    volume, boxes = scan(said.slices, said.side, said.objects)
    with Client(said.url, timeout_s=600) as client:
        client.segment_volume(volume, boxes=[[*boxes[0][:2], 0, *boxes[0][3:5], 0]])  # warm
        walk_s, together = seconds(client, volume, boxes)
        timed = boxes if said.whole_loop else boxes[:1]
        alone = [seconds(client, volume, [box]) for box in timed]
    loop_s = sum(spent for spent, _ in alone) * len(boxes) / len(timed)
    differ = [float(((together == n + 1) & (one == 0)).mean()) for n, (_, one) in enumerate(alone)]
    print(
        json.dumps(
            {
                "volume": [said.slices, said.side, said.side],
                "objects": len(boxes),
                "walk_s": round(walk_s, 2),
                "loop_s": round(loop_s, 2),
                "loop_measured_objects": len(timed),
                "ratio": round(loop_s / walk_s, 2),
                "largest_part_of_voxels_that_differ": max(differ),
            }
        )
    )


if __name__ == "__main__":
    main()
