"""The pods that the chart makes: room, memory, rights, secrets, probes."""

import json
import shlex

import pytest
import yaml
from charts import GOOD, PROFILES, amount, containers, objects, pods, settings_of

from serving.local.ray import environment
from serving.settings import PoolSettings, load


@pytest.mark.parametrize("name", PROFILES)
def test_replicas_fit_their_pods(name, tmp_path):
    for service in objects(name, "RayService"):
        settings = settings_of(service)
        wanted = {"router": settings.router.replicas}
        for pool in ("adaptive", "contrastive"):
            assert getattr(settings.pools, pool).resources == {pool: 1}
            wanted[pool] = getattr(settings.pools, pool).replicas
        offered = {}
        for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
            (word,) = shlex.split(group["rayStartParams"]["resources"])
            offered |= {key: value * group["minReplicas"] for key, value in json.loads(word).items()}
        for name, count in wanted.items():  # a pool's new replica starts before the old one stops
            assert offered[name] == count * (1 if name == "router" else 2)


@pytest.mark.skipif("autoscale" not in PoolSettings.model_fields, reason="the pools have no autoscaler")
def test_an_autoscaled_pool_has_no_fixed_number_and_no_spare_room():
    (service,) = objects("autoscaled", "RayService")
    settings = settings_of(service)
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert {each["name"] for each in application["deployments"]} == {"Ingress", "contrastive"}
    assert (settings.pools.adaptive.replicas, settings.pools.adaptive.surge_percent) == (1, 0)
    groups = {each["groupName"]: each for each in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    assert json.loads(shlex.split(groups["adaptive"]["rayStartParams"]["resources"])[0]) == {"adaptive": 1}


@pytest.mark.parametrize("name", GOOD)
def test_requests_and_limits_add_up(name):
    for component, spec, _ in pods(name):
        volumes = {each["name"]: each for each in spec["volumes"]}
        for each in containers(spec).values():
            for resource in ("cpu", "memory"):
                asked, most = (each["resources"][kind][resource] for kind in ("requests", "limits"))
                assert 0 < amount(asked) <= amount(most), (component, each["name"], resource)
        if "triton" in containers(spec):
            shm = amount(volumes["dev-shm"]["emptyDir"]["sizeLimit"])
            assert volumes["dev-shm"]["emptyDir"]["medium"] == "Memory"
            total = sum(amount(each["resources"]["requests"]["memory"]) for each in spec["containers"])
            assert amount(containers(spec)["triton"]["resources"]["requests"]["memory"]) >= shm
            assert total >= shm + 2**30


@pytest.mark.parametrize("name", GOOD)
def test_shared_memory_holds_the_budget_and_room_beside_it(name, tmp_path):
    (config_map,) = [each for each in objects(name, "ConfigMap") if each["metadata"]["name"].endswith("-settings")]
    (tmp_path / "settings.toml").write_text(config_map["data"]["settings.toml"])
    budget = load(tmp_path / "settings.toml", {}).features.budget_bytes
    for component, spec, _ in pods(name):
        if component in ("adaptive", "standalone"):
            (shm,) = [each["emptyDir"]["sizeLimit"] for each in spec["volumes"] if each["name"] == "dev-shm"]
            assert amount(shm) >= budget + 256 * 2**20 + 100 * 2**20
            mounted = {
                each["name"] for each in spec["containers"] if any(m["mountPath"] == "/dev/shm" for m in each["volumeMounts"])
            }
            assert {"triton"} < mounted


@pytest.mark.parametrize("name", GOOD)
def test_no_container_may_more_than_it_must(name):
    for component, spec, _ in pods(name):
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        token = component == "head" and name.endswith("all on")  # the autoscaler asks the Kubernetes API
        assert spec["automountServiceAccountToken"] is token
        assert spec["enableServiceLinks"] is False  # MEDSERVE_..._PORT of a Service would be read as a setting
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in each for each in spec["volumes"])
        for each in containers(spec).values():
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
    for service in objects(name, "RayService"):
        options = service["spec"]["rayClusterConfig"].get("autoscalerOptions", {})
        assert not options or options["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("name", GOOD)
def test_secrets_come_by_reference(name):
    secret = {each["metadata"]["name"] for each in objects(name, "Secret")}
    assert secret == {"trial-medserve-triton"}
    for _, spec, _ in pods(name):
        for each in containers(spec).values():
            named = {variable["name"]: variable for variable in each.get("env", [])}
            for variable, given in named.items():
                if "TOKEN" in variable or "KEY" in variable:
                    assert given["valueFrom"]["secretKeyRef"]["name"]


@pytest.mark.parametrize("name", GOOD)
def test_probes_follow_both_containers(name):
    for component, spec, _ in pods(name):
        found = containers(spec)
        if "triton" in found:
            for probe, path in (("livenessProbe", "live"), ("readinessProbe", "ready"), ("startupProbe", "ready")):
                assert found["triton"][probe]["exec"]["command"][-1] == f"http://127.0.0.1:8101/v2/health/{path}"
        if component in ("router", "standalone"):
            front = found["ray" if component == "router" else "medserve"]
            assert front["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "serve"}
        if component == "standalone":
            assert found["medserve"]["livenessProbe"]["httpGet"]["path"] == "/livez"
        if component not in ("head", "loadtest"):
            worker = found.get("ray") or found["medserve"]
            command = worker["lifecycle"]["preStop"]["exec"]["command"]
            assert command[:4] == ["medserve", "node", "drain", "--timeout"]
            assert spec["terminationGracePeriodSeconds"] > int(command[4])


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_haproxy_is_told_what_it_is_told_on_one_machine(name, tmp_path):
    here = environment(tmp_path, tmp_path, 1)
    for component, spec, _ in pods(name):
        for each in containers(spec).values():
            said = {item["name"]: item.get("value") for item in each.get("env", [])}
            if "RAY_SERVE_ENABLE_HA_PROXY" in said:
                for variable in ("RAY_SERVE_HAPROXY_RETRY_ON", "RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S"):
                    assert said[variable] == here[variable], component
