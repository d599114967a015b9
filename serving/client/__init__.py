"""The Python client: `Client` and `AsyncClient` over HTTP, `GrpcClient` and `AsyncGrpcClient` over gRPC, one set of methods."""

from serving.client.aio import AsyncClient, AsyncGrpcClient
from serving.client.fault import MedserveError
from serving.client.results import (
    Classification,
    Embeddings,
    Frame,
    ImageHandle,
    Mask,
    Model,
    Progress,
    Segmentation,
    VolumeSegmentation,
)
from serving.client.session import Session
from serving.client.sync import Client, GrpcClient

__all__ = [
    "AsyncClient",
    "AsyncGrpcClient",
    "Classification",
    "Client",
    "Embeddings",
    "Frame",
    "GrpcClient",
    "ImageHandle",
    "Mask",
    "MedserveError",
    "Model",
    "Progress",
    "Segmentation",
    "Session",
    "VolumeSegmentation",
]
