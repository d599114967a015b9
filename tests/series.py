"""Synthetic DICOM series, written with pydicom."""

import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1, 0, 0, 0, 1, 0)
SERIES = generate_uid(entropy_srcs=["series"])


def file_of(pixels, position, *, cosines=AXIAL, spacing=(2.0, 1.5), series=SERIES, slope=1, intercept=-1024, **more):
    """One slice (rows, columns) int16 as a DICOM file; `spacing`: rows, columns."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = "Secret^Name", "4711"
    data.Modality, data.SeriesInstanceUID = "CT", series
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = slope, intercept
    data.PixelSpacing, data.ImageOrientationPatient = list(spacing), list(cosines)
    if position is not None:
        data.ImagePositionPatient = [round(float(p), 4) for p in position]
    for name, value in more.items():
        setattr(data, name, value)
    data.PixelData = pixels.astype("<i2").tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def volume(shape=(7, 6, 5), seed=0):
    """Stored values [column, row, slice] int16."""
    return np.random.default_rng(seed).integers(0, 2000, shape).astype(np.int16)


def series_of(samples, step=(0, 0, 3.0), origin=(-10, 20, 30), **more):
    """The files of a volume [column, row, slice], in its order."""
    step, origin = np.array(step, float), np.array(origin, float)
    return [file_of(samples[:, :, n].T, origin + n * step, **more) for n in range(samples.shape[2])]
