"""MedLSAM's answers: structures by name, located in a volume by a support set and segmented by a SAM-like model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from serving.domain.answer import Answer, ModelInfo
from serving.domain.request import Request
from serving.domain.volume import ClassNames, SegmentVolume, VolumeAccepted, VolumeAnswer, VolumeEvent, VolumeLocating
from serving.engines.engine import EngineSpec
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Family, Tools, VolumeFamily
from serving.families.medlsam import engines, supports
from serving.families.medlsam.locate import Locator, objects, steps
from serving.families.medlsam.offsets import PATCH, RANGE_MM
from serving.families.medlsam.orientation import Orientation, orientation
from serving.families.medlsam.supports import Structure, SupportSet
from serving.families.volume_answer import Tell, read
from serving.imaging.volume import Volume
from serving.manifest import Manifest
from serving.telemetry.stages import Stages


class MedLsam:
    """One served MedLSAM. Its slices go to another model of the pool, told once by `segmenter` or the first that takes them."""

    def __init__(self, manifest: Manifest, tools: Tools) -> None:
        if tools.read_volume is None or tools.supports is None:
            raise SetupError(f"model {manifest.model} needs volumes and support sets: serve it in the adaptive pool")
        self._manifest, self._tools, self._info = manifest, tools, manifest.info()
        specs = DECLARATION.specs(manifest)
        self._position = tools.engine(specs["position"], manifest.engines["position"][0])
        self._refine = tools.engine(specs["refine"], manifest.engines["refine"][0])

    @property
    def manifest(self) -> Manifest:
        """The built model behind it."""
        return self._manifest

    async def answer(self, request: Request, stages: Stages) -> Answer:
        """No task on pictures: always a Fault."""
        raise Fault(Kind.INVALID, f"{self._manifest.model} takes volumes with class names", param="model")

    async def answer_volume(self, request: Request, stages: Stages, tell: Tell, volume: Volume | None = None) -> VolumeAnswer:
        """Masks of the classes, in their order. Raises Fault; before VolumeAccepted for a wrong set, class or volume."""
        task = request.task
        assert isinstance(task, SegmentVolume)
        if not isinstance(task.objects, ClassNames):
            raise Fault(Kind.INVALID, f"{self._manifest.model} takes class names with a support set", param="classes")
        segmenter = self._segmenter()
        structures = _chosen(await self._tools.run(partial(self._set, task.objects.supports)), task.objects.names)
        volume = volume or await self._tools.run(partial(read, task, self._tools, stages))
        orientation(volume.affine, volume.frame.size)  # refuses a volume without geometry while it can be a status
        info = _with(self._info, segmenter.manifest.info())
        # Before it is located: that may take minutes on a CPU, which the next events count.
        most = len(structures) * volume.frame.slices(task.axis)
        await tell(VolumeAccepted(volume.frame, len(structures), most, info))

        async def locating(done: int, total: int) -> None:
            await tell(VolumeLocating(done, total))

        await locating(0, steps(structures))
        at_3mm, placed = await self._tools.run(partial(_prepared, volume, stages))
        locator = Locator(self._position, self._refine, self._tools.run, request, stages, locating)
        asked = objects(await locator.find(at_3mm, placed, structures), volume.frame, task.axis)

        async def told(event: VolumeEvent) -> None:
            if not isinstance(event, VolumeAccepted):
                await tell(event)

        boxed = replace(request, task=replace(task, objects=asked))
        found = await segmenter.answer_volume(boxed, stages, told, volume)
        return replace(found, model=info)

    def _segmenter(self) -> VolumeFamily:
        chosen = str(self._manifest.options.get("segmenter", ""))
        for name, family in self._tools.peers().items():
            if chosen in ("", name) and getattr(family, "walks", False):
                return cast(VolumeFamily, family)
        raise Fault(Kind.INVALID, f"no model is served that could segment for {self._manifest.model}", param="model")

    def _set(self, name: str) -> SupportSet:
        assert self._tools.supports is not None
        found = supports.read(self._tools.supports, name)
        if found.digest != self._manifest.digest:
            message = "this support set was made with another checkpoint: make it again with `medserve models support`"
            raise Fault(Kind.INVALID, message, param="supports")
        return found


def _prepared(volume: Volume, stages: Stages) -> tuple[supports.Floats, Orientation]:
    """Blocking. Raises Fault without geometry."""
    with stages.measure("preprocess"):
        return supports.prepared(volume)


def _chosen(held: SupportSet, names: tuple[str, ...]) -> list[Structure]:
    unknown = [name for name in names if name not in held.structures]
    if unknown:
        message = f"the support set does not show every class asked for; it shows: {', '.join(held.structures)}"
        raise Fault(Kind.INVALID, message, param="classes")
    return [held.structures[name] for name in names]


def _with(mine: ModelInfo, other: ModelInfo) -> ModelInfo:
    """Who answered: this model, with the engines of both."""
    return replace(mine, engines={**mine.engines, **other.engines}, demonstration=mine.demonstration or other.demonstration)


class Declaration:
    """What MedLSAM is before any of its engines is built."""

    name = "medlsam"
    pool = "adaptive"
    tasks: frozenset[type] = frozenset({SegmentVolume})

    def specs(self, manifest: Manifest) -> Mapping[str, EngineSpec]:
        """part -> spec: position, describe, refine."""
        return engines.specs(manifest)

    def open(self, manifest: Manifest, tools: Tools) -> Family:
        """The served model. Raises SetupError where there are no volumes."""
        return MedLsam(manifest, tools)

    def limits(self, manifest: Manifest) -> Mapping[str, Any]:
        """Voxels of a patch's side; the farthest that a structure is looked for, mm; the model that segments."""
        segmenter = str(manifest.options.get("segmenter", ""))
        return {"patch_side": PATCH, "range_mm": list(RANGE_MM), "segmenter": segmenter}


DECLARATION = Declaration()
