"""A ZIP of files, unpacked no further than the budget allows. No path is read from it, and no name is repeated."""

from __future__ import annotations

import io
import zipfile

from serving.errors import Fault, Kind
from serving.settings import VolumeSettings

_PIECE_BYTES = 1 << 20


def is_zip(data: bytes) -> bool:
    """Whether these are the bytes of a ZIP archive."""
    return data.startswith(b"PK\x03\x04")


def files_of(data: bytes, budget: VolumeSettings) -> tuple[bytes, ...]:
    """The files of an archive in its own order; folders, DICOMDIR and what macOS adds are left out.

    Sizes come from the archive's directory first, and are held against what is read. Raises Fault: MALFORMED, TOO_LARGE,
    INVALID.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            wanted = [entry for entry in archive.infolist() if _is_wanted(entry)]
            if not wanted:
                raise Fault(Kind.INVALID, "the ZIP archive holds no file: send the DICOM files of one series")
            if len(wanted) > budget.max_files:
                raise Fault(Kind.TOO_LARGE, f"the ZIP archive holds {len(wanted)} files: at most {budget.max_files} are taken")
            if sum(entry.file_size for entry in wanted) > budget.memory_bytes:
                raise _too_large(budget)
            return _unpacked(archive, wanted, budget)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as exc:
        raise Fault(Kind.MALFORMED, "the ZIP archive is damaged, encrypted or of an unusual kind: send a plain one") from exc


def _unpacked(archive: zipfile.ZipFile, wanted: list[zipfile.ZipInfo], budget: VolumeSettings) -> tuple[bytes, ...]:
    found, left = [], budget.memory_bytes
    for entry in wanted:
        pieces = []
        with archive.open(entry) as stream:
            while piece := stream.read(_PIECE_BYTES):
                left -= len(piece)
                if left < 0:
                    raise _too_large(budget)
                pieces.append(piece)
        found.append(b"".join(pieces))
    return tuple(found)


def _is_wanted(entry: zipfile.ZipInfo) -> bool:
    parts = entry.filename.split("/")
    hidden = parts[-1].startswith(".") or "__MACOSX" in parts
    return not (entry.is_dir() or hidden or parts[-1].upper() == "DICOMDIR")


def _too_large(budget: VolumeSettings) -> Fault:
    message = f"the ZIP archive unpacks to more than volumes.memory_bytes, {budget.memory_bytes >> 20} MiB: send fewer slices"
    return Fault(Kind.TOO_LARGE, message)
