"""Each engine at the lowest precision whose answers pass the gate, on this processor and with these weights."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from serving.build import gate, gate_set, lower
from serving.build.gate import Arrays, Engine, Masks, Verdict
from serving.build.processor import BF16, VNNI, able
from serving.build.weights import Say
from serving.errors import SetupError

HINT = "precision"
"""File beside an engine: what OpenVINO is asked for in place of f32 (`local/backends/openvino`)."""

FASTER, ROUNDS = 1.03, 5
"""A precision that does not make an engine faster here is not worth its rounding: of so many runs the fastest count."""

LAST_STAGE = 2
"""Attention blocks of LiteMedSAM's last stage (`nets.tiny_vit.DEPTHS`)."""

MASK = "mask"
"""Of an engine that has this output the gate computes no other, as a click asks for no other."""


@dataclass(frozen=True)
class Candidate:
    """One way to run an engine. `needs`: of the processor; `hint`: asked of OpenVINO; `make`: (f32 graph, samples) -> graph."""

    name: str
    needs: str = ""
    hint: str = "f32"
    make: Callable[[ov.Model, Sequence[Arrays]], ov.Model] = lambda model, samples: model


F32 = Candidate("f32")
THROUGHOUT = Candidate("bf16", BF16, "bf16")
PROJECTIONS = Candidate("bf16-projections", BF16, make=lambda model, samples: lower.to_bf16(model))
WIDENING = Candidate("bf16-widening", BF16, make=lambda model, samples: lower.to_bf16(model, narrowing=False))
LATE = Candidate(
    "bf16-late", BF16, make=lambda model, samples: lower.to_bf16(model, narrowing=False, convolutions=True, scores=LAST_STAGE)
)
INT8 = Candidate("int8", VNNI, make=lower.to_int8)

IMAGE_ENCODER = (THROUGHOUT, PROJECTIONS, LATE, WIDENING)
MASK_DECODER = (PROJECTIONS,)
TOWER = (INT8, THROUGHOUT, PROJECTIONS)
"""Tried before f32, lowest first. A mask decoder is never bf16 throughout: within it are sines of large angles."""


@dataclass(frozen=True)
class Choice:
    """The precision that an engine got, and its gate's numbers with why each lower one was dropped, as `EngineRecord` keeps."""

    precision: str
    gate: dict[str, Any]
    verdict: Verdict


def choose_masks(encoder: Path, decoder: Path, say: Say, has: frozenset[str] | None = None) -> tuple[Choice, Choice]:
    """Lower an image encoder and its mask decoder, which is judged behind the encoder as it was chosen.

    Each folder holds `model.onnx`, whose answers in ONNX Runtime at float32 are the reference, and `model.xml`, which is
    rewritten. `has`: what the processor has, where not looked up. Raises SetupError where float32 itself fails the gate.
    """
    items = gate_set.items()
    encode, decode = open_onnx(encoder), open_onnx(decoder)
    reference = [gate.masks(item, encode({"image": item.given.tensor}), decode) for item in items]
    plain = open_openvino(decoder)

    def encodes(candidate: Candidate, engine: Engine) -> Verdict:
        return gate.compare(reference, (gate.masks(one, engine({"image": one.given.tensor}), plain) for one in items))

    encoding = _choose(encoder, IMAGE_ENCODER, encodes, [{"image": item.given.tensor} for item in items], say, has)
    features: list[Arrays] = []
    prompt: list[Arrays] = []
    if any(candidate.needs in (able() if has is None else has) for candidate in MASK_DECODER):
        chosen = open_openvino(encoder)
        features = [chosen({"image": item.given.tensor}) for item in items]
        prompt = [{**features[0], "points": items[0].points[:, :1], "labels": items[0].labels[:, :1]}]

    def decodes(candidate: Candidate, engine: Engine) -> Verdict:
        found: Iterator[Masks] = (gate.masks(item, made, engine) for item, made in zip(items, features, strict=True))
        return gate.compare(reference, found)

    return encoding, _choose(decoder, MASK_DECODER, decodes, prompt, say, has, known=encoding)


def choose_tower(
    tower: Path,
    images: Sequence[npt.NDArray[np.float32]],
    labels: npt.NDArray[np.float32],
    say: Say,
    has: frozenset[str] | None = None,
) -> Choice:
    """Lower a contrastive image tower. `images` (1, 3, S, S) each; `labels` (L, D): embeddings of texts at float32."""
    samples = [{"pixels": image} for image in images]

    def embed(engine: Engine) -> npt.NDArray[np.float32]:
        return np.concatenate([engine(sample)["embedding"] for sample in samples])

    wanted = embed(open_onnx(tower))
    return _choose(
        tower, TOWER, lambda c, engine: gate.judge_embeddings(c.name, wanted, embed(engine), labels), samples, say, has
    )


def open_openvino(folder: Path) -> Engine:
    """The engine of a folder as the backend runs it, in this process."""
    hint = folder / HINT
    return _compiled(ov.Core().read_model(folder / "model.xml"), hint.read_text().strip() if hint.exists() else F32.hint)


def open_onnx(folder: Path) -> Engine:
    """The graph of a folder in ONNX Runtime, at the types it has."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a build shares its machine
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    every = [output.name for output in session.get_outputs()]
    names = [MASK] if MASK in every else every
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def _choose(
    folder: Path,
    candidates: Sequence[Candidate],
    judge: Callable[[Candidate, Engine], Verdict],
    samples: Sequence[Arrays],
    say: Say,
    has: frozenset[str] | None,
    known: Choice | None = None,
) -> Choice:
    """The first candidate that passes and is faster, put into the folder. Why the others were dropped is kept in the record.

    `known`: of the encoder before a decoder, which was judged with the decoder at float32.
    """
    (folder / HINT).unlink(missing_ok=True)
    model = ov.Core().read_model(folder / "model.xml")
    exact = _compiled(model, F32.hint)
    features = able() if has is None else has
    dropped: dict[str, Any] = {}
    for candidate in candidates:
        if candidate.needs and candidate.needs not in features:
            dropped[candidate.name] = {"why": f"this processor has no {candidate.needs}"}
            continue
        made = candidate.make(model, samples)
        engine = _compiled(made, candidate.hint)
        verdict = judge(candidate, engine)
        if not verdict.passed:
            dropped[candidate.name] = {"why": "its answers differ from float32's", **verdict.numbers}
            continue
        gain = round(_gain(exact, engine, samples[0]), 2)
        if gain >= FASTER:
            _install(folder, made, candidate.hint)
            return _said(folder, candidate, verdict, {"faster": gain, "dropped": dropped}, say)
        dropped[candidate.name] = {"why": "it is not faster here", "faster": gain, **verdict.numbers}
    verdict = judge(F32, exact) if known is None else known.verdict
    if not verdict.passed:
        raise SetupError(f"engine {folder.parent.name} fails its precision gate even at float32: {_words(verdict)}")
    return _said(folder, F32, verdict, {"dropped": dropped}, say)


def _said(folder: Path, candidate: Candidate, verdict: Verdict, more: dict[str, Any], say: Say) -> Choice:
    say(f"{folder.parent.name} runs at {candidate.name}: {_words(verdict)}")
    return Choice(candidate.name, {**verdict.record(), **more}, verdict)


def _words(verdict: Verdict) -> str:
    return ", ".join(f"{name} {value}" for name, value in verdict.numbers.items())


def _gain(exact: Engine, engine: Engine, sample: Arrays) -> float:
    """How many times faster `engine` is, by the fastest of several runs in turn."""
    times: dict[Engine, float] = {exact: float("inf"), engine: float("inf")}
    for _ in range(ROUNDS):
        for each in times:
            started = time.perf_counter()
            each(sample)
            times[each] = min(times[each], time.perf_counter() - started)
    return times[exact] / times[engine]


def _compiled(model: ov.Model, hint: str) -> Engine:
    threads = len(os.sched_getaffinity(0))
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    outputs = [port for port in model.outputs if MASK in port.get_names()] or model.outputs
    wanted = ov.Model(outputs, model.get_parameters(), model.get_friendly_name())
    request = ov.Core().compile_model(wanted, "CPU", options).create_infer_request()
    return lambda inputs: {port.get_any_name(): np.array(value) for port, value in request.infer(inputs).items()}


def _install(folder: Path, model: ov.Model, hint: str) -> None:
    ov.save_model(model, folder / "lower.xml", compress_to_fp16=False)
    for suffix in (".bin", ".xml"):
        (folder / f"lower{suffix}").replace(folder / f"model{suffix}")
    if hint != F32.hint:
        (folder / HINT).write_text(hint + "\n")
