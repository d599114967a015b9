"""Who reaches whom in the chart: routes, policies, and the selectors of what names pods."""

import re

import helm
import pytest
from charts import GOOD, containers, objects, pods, rendered


def jobs_of_the_alerts():
    return set(re.findall(r'job="([\w-]+)"', (helm.ROOT / "deploy" / "observability" / "rules" / "alerts.yaml").read_text()))


@pytest.mark.parametrize("name", ["one name", "every name"])
def test_two_routes_for_one_name_of_a_listener_are_refused(name):
    """Gateway API, GRPCRouteSpec.hostnames: the listener must accept exactly one of them."""
    error = rendered()[name]
    assert isinstance(error, str)
    assert "gateway.grpc.hostnames" in error


def test_a_grpc_route_may_have_a_listener_of_its_own():
    (route,) = objects("its own listener", "GRPCRoute")
    assert route["spec"]["parentRefs"] == [{"name": "public", "sectionName": "grpc"}]
    assert objects("its own listener", "HTTPRoute")[0]["spec"]["parentRefs"] == [{"name": "public"}]


@pytest.mark.parametrize("name", GOOD)
def test_triton_is_reached_from_its_own_pod_alone(name):
    for _, spec, _ in pods(name):
        for arguments in [each["args"] for each in spec["containers"] if each["name"] == "triton"]:
            assert {"--grpc-address=127.0.0.1", "--http-address=127.0.0.1", "--grpc-port=8001", "--http-port=8101"} <= set(
                arguments
            )
            for flag in ("--grpc-restricted-protocol=", "--http-restricted-api="):
                (value,) = [word.removeprefix(flag) for word in arguments if word.startswith(flag)]
                restricted, _, key = value.rpartition(":")
                assert {"shared-memory", "model-repository"} <= set(restricted.split(","))
                assert key == "medserve-key=$(MEDSERVE_TRITON__KEY)"
    policies = objects(name, "NetworkPolicy")
    for policy in policies:
        for rule in policy["spec"].get("ingress", []):
            assert rule.get("ports"), "a rule without ports opens all of them"
            for each in rule["ports"]:
                inside = range(each["port"], each.get("endPort", each["port"]) + 1)
                assert 8001 not in inside
                assert 8101 not in inside
                assert 8002 not in inside or policy["metadata"]["name"].endswith("-monitoring")
    (deny,) = [each["spec"] for each in policies if each["metadata"]["name"].endswith("-default-deny")]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(deny)
    for each in objects(name, "Pod"):
        assert deny["podSelector"]["matchLabels"].items() <= each["metadata"]["labels"].items()


@pytest.mark.parametrize("name", GOOD)
def test_what_names_pods_finds_some(name):
    """Services, disruption budgets and policies select by labels that pods have, and by ports that they name."""
    labels = {}
    for each in objects(name):
        templates = [each["spec"]["template"]] if each["kind"] in ("Deployment", "Job") else []
        if each["kind"] == "RayService":
            cluster = each["spec"]["rayClusterConfig"]
            templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
        for template in templates:
            ports = {p["name"] for c in template["spec"]["containers"] for p in c.get("ports", [])}
            labels[template["metadata"]["labels"]["app.kubernetes.io/component"]] = (template["metadata"]["labels"], ports)

    def matching(selector):
        return [ports for own, ports in labels.values() if selector.items() <= own.items()]

    for service in objects(name, "Service"):
        (ports,) = matching(service["spec"]["selector"])
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= ports
    for budget in objects(name, "PodDisruptionBudget"):
        assert len(matching(budget["spec"]["selector"]["matchLabels"])) == 1
    for policy in objects(name, "NetworkPolicy"):
        assert matching(policy["spec"]["podSelector"]["matchLabels"])
    for monitor in objects(name, "PodMonitor"):
        scraped = set().union(*matching(monitor["spec"]["selector"]["matchLabels"]))
        assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} <= scraped
        named = {each["port"]: each["relabelings"] for each in monitor["spec"]["podMetricsEndpoints"]}
        assert named["triton"] == [{"targetLabel": "job", "replacement": "medserve-triton"}]
        assert {rule["replacement"] for (rule,) in named.values()} >= jobs_of_the_alerts()
    services = {each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in objects(name, "Service")}
    for route in (*objects(name, "HTTPRoute"), *objects(name, "GRPCRoute")):
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        assert services[backend["name"]] == backend["port"]
        assert route["spec"]["parentRefs"] == [{"name": "public"}]


def test_the_command_that_shows_the_build_names_the_pods_that_build():
    """`kubectl logs -l ... -c prepare` ends at the first pod that has no such container."""
    page = (helm.ROOT / "docs" / "deploy.md").read_text()
    (named,) = re.findall(r"app.kubernetes.io/component in \(([\w,]+)\)' -c prepare", page)
    assert {component for component, spec, _ in pods("cpu") if "prepare" in containers(spec)} == set(named.split(","))
    assert [component for component, spec, _ in pods("standalone") if "prepare" in containers(spec)] == ["standalone"]
