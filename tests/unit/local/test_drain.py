"""What a drain makes of Ray Serve's details."""

from serving.local.drain import patience_s


def deployment(patience):
    return {"deployment_config": {"graceful_shutdown_timeout_s": patience}, "replicas": []}


def test_the_most_patient_deployment_counts():
    details = {
        "applications": {
            "medserve": {"deployments": {"Ingress": deployment(300.0), "adaptive": deployment(20.0)}},
            "another": {"deployments": {"it": deployment(30.0)}},
        }
    }
    assert patience_s(details) == 300.0
    assert patience_s({"applications": {}}) == 0.0
