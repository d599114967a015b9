from tests.unit.edge.conftest import _both, served

__all__ = ["_both", "served"]
