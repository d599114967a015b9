"""`medserve doctor`: this machine, or a running cluster from outside; each finding with what to do about it."""

from serving.local.doctor.cluster import examine_cluster
from serving.local.doctor.finding import Finding
from serving.local.doctor.machine import examine

__all__ = ["Finding", "examine", "examine_cluster"]
