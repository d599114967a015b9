import pickle

import grpc

from serving.errors import Fault, Kind


def test_every_kind_names_a_real_grpc_status_and_a_unique_code():
    codes = [kind.row.code for kind in Kind]
    assert len(set(codes)) == len(codes)
    assert all(hasattr(grpc.StatusCode, kind.row.grpc) for kind in Kind)


def test_a_retryable_kind_is_never_the_client_s_mistake():
    assert not [k for k in Kind if k.row.retryable and k.row.outcome == "client_error"]


def test_a_fault_survives_the_way_between_processes():
    fault = pickle.loads(pickle.dumps(Fault(Kind.POOL_FULL, "full", param="model", retry_after_s=1.5)))
    assert (fault.kind, fault.message, fault.param, fault.retry_after_s) == (Kind.POOL_FULL, "full", "model", 1.5)
