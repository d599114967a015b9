"""The chart, rendered by Helm's library: valid for every supported Kubernetes, and what it says of memory, rights and reach."""

import copy
import functools
import json
import shlex
import subprocess
import sys
from pathlib import Path

import helm
import jsonschema
import kubernetes_validate
import pytest
import yaml

from serving.local.ray import environment
from serving.settings import PoolSettings, load

VERSIONS = ("1.34", "1.35", "1.36", "1.37")
PROFILES = ("cpu", "gpu", "standalone")
CRDS = helm.ROOT.parent / "shared" / "data" / "crds"
CUSTOM = {
    "RayService": "ray.io_rayservices",
    "PodMonitor": "monitoring.coreos.com_podmonitors",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules",
    "ScaledObject": "keda.sh_scaledobjects",
}
ROUTES = ("HTTPRoute", "GRPCRoute")
"""The Gateway API's: their few fields are looked at here; docs/deploy.md says which schemas they were checked against."""
EVERYTHING = {
    "auth": {"tokens": {"clinic": {"secretName": "tokens", "secretKey": "clinic"}}},
    "ingress": {"enabled": True, "className": "nginx", "tlsSecretName": "tls", "grpc": {"enabled": True}},
    "gateway": {
        "enabled": True,
        "parentRefs": [{"name": "public"}],
        "hostnames": ["medserve.example.com"],
        "grpc": {"enabled": True, "hostnames": ["grpc.medserve.example.com"]},
    },
    "priorityClass": {"create": True},
    "monitoring": {"podMonitors": True, "rules": True, "dashboards": True, "labels": {"release": "prometheus"}},
    "loadtest": {"enabled": True, "thresholds": "[all]\nfailed = 0.0", "tokenSecret": {"name": "tokens", "key": "clinic"}},
    "autoscaling": {"enabled": True},
    "head": {"redis": {"address": "redis:6379", "passwordSecret": {"name": "redis"}}},
    "standalone": {"keda": {"enabled": True}},
    "networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"app": "viewer"}}}]},
    "podAnnotations": {"team": "imaging"},
    "volumeJobs": {"existingClaim": "volume-jobs"},
}
WRONG = {
    "settings.limits.max_objects": {"settings": {"limits": {"max_objects": "many"}}},
    "settings.features": {"settings": {"features": {"budget": 1}}},
    "settings.pools.adaptive.replicas": {"settings": {"pools": {"adaptive": {"replicas": 0}}}},
    "settings.triton": {"settings": {"triton": {"address": "elsewhere:8001"}}},
    "settings": {"settings": {"auth": {"tokens": {"clinic": "in plain text"}}}},
    "mode": {"mode": "cluster"},
    "pools": {"pools": {"imaginary": {"models": ["clip"]}}},
    "pools.adaptive.pods.min": {"pools": {"adaptive": {"pods": {"min": 0}}}},
    "router.resources.limits.memory": {"router": {"resources": {"limits": {"memory": "3 gigabytes"}}}},
    "upgrade.strategy": {"upgrade": {"strategy": "InPlace"}},
}
SMALL = {"pools": {"adaptive": {"triton": {"resources": {"limits": {"memory": "512Mi"}}}}}}
ROUTED = {
    "one name": {"hostnames": ["a.example.com"], "grpc": {"enabled": True, "hostnames": ["a.example.com"]}},
    "every name": {"grpc": {"enabled": True, "hostnames": ["a.example.com"]}},
    "its own listener": {"grpc": {"enabled": True, "parentRefs": [{"name": "public", "sectionName": "grpc"}]}},
}
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3}


AUTOSCALED = {"autoscaling": {"enabled": True}, "settings": {"pools": {"adaptive": {"autoscale": {"max_replicas": 4}}}}}


@functools.cache
def rendered():
    """Every rendering that these tests look at, by one run of Helm."""
    wanted = {name: helm.profile(name) for name in PROFILES}
    wanted |= {f"{name}, all on": helm.profile(name, **EVERYTHING) for name in PROFILES}
    wanted |= {path: helm.profile("cpu", **values) for path, values in WRONG.items()}
    wanted |= {"too small": helm.profile("cpu", **SMALL)}
    routed = {"enabled": True, "parentRefs": [{"name": "public"}]}
    wanted |= {name: helm.profile("cpu", gateway=routed | values) for name, values in ROUTED.items()}
    wanted |= {"autoscaled": helm.profile("cpu", **AUTOSCALED)}
    return helm.render(wanted)


def objects(name, kind=None):
    found = rendered()[name]
    assert isinstance(found, list), found
    return [each for each in found if kind is None or each["kind"] == kind]


GOOD = (*PROFILES, *(f"{name}, all on" for name in PROFILES))


def pods(name):
    """(component, pod spec, replicas) of every pod that a rendering makes."""
    for each in objects(name):
        if each["kind"] in ("Deployment", "Job"):
            yield of(each["spec"]["template"], each["spec"].get("replicas", 1))
        if each["kind"] == "RayService":
            cluster = each["spec"]["rayClusterConfig"]
            yield of(cluster["headGroupSpec"]["template"], 1)
            for group in cluster["workerGroupSpecs"]:
                yield of(group["template"], group["replicas"])


def of(template, replicas):
    return template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"], replicas


def containers(spec):
    return {each["name"]: each for each in [*spec.get("initContainers", []), *spec["containers"]]}


def amount(text):
    unit = next((unit for unit in UNITS if str(text).endswith(unit)), "")
    return float(str(text).removesuffix(unit)) * UNITS.get(unit, 1)


def settings_of(service):
    """What the Serve config amounts to: the application's arguments, and the replicas of its deployments."""
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    tree = application["args"]["settings"]
    for deployment in application["deployments"]:
        name = deployment["name"]
        branch = tree["router"] if name == "Ingress" else tree["pools"][name]
        branch["replicas"] = deployment["num_replicas"]
    return load(None, {}, **tree)


@functools.cache
def schema_of(kind):
    """The custom resource's schema, closed: a field that it does not know is an error, where a cluster would drop it."""
    definition = yaml.load((CRDS / f"{CUSTOM[kind]}.yaml").read_text(), yaml.CSafeLoader)
    versions = {each["name"]: each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"]}
    return {name: jsonschema.Draft202012Validator(closed(tree)) for name, tree in versions.items()}


def closed(tree):
    if isinstance(tree, list):
        return [closed(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    made = {key: closed(value) for key, value in tree.items()}
    opened = "additionalProperties" in tree or tree.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(tree.get("properties"), dict) and tree.get("type") == "object" and not opened:
        made["additionalProperties"] = False
    return made


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version):
    seen = set()
    for name in GOOD:
        found = [each for each in objects(name) if each["kind"] not in (*CUSTOM, *ROUTES)]
        for component, spec, _ in pods(name):
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": component}, "spec": spec})
        for each in found:
            text = json.dumps(each, sort_keys=True)
            if text not in seen:
                kubernetes_validate.validate(each, version, strict=True)
            seen.add(text)


@pytest.mark.skipif(not CRDS.exists(), reason="the custom resources' schemas are not here")
@pytest.mark.parametrize("name", GOOD)
def test_every_custom_resource_is_valid(name):
    found = [each for each in objects(name) if each["kind"] in CUSTOM]
    for each in found:
        whole = copy.deepcopy(each)
        whole["metadata"] = {}  # the apiserver's own
        errors = list(schema_of(each["kind"])[each["apiVersion"].split("/")[1]].iter_errors(whole))
        assert not errors, [f"{list(error.absolute_path)}: {error.message}" for error in errors]


def test_all_kinds_are_looked_at():
    kinds = {each["kind"] for name in GOOD for each in objects(name)}
    assert {"RayService", "PodMonitor", "ScaledObject", "Deployment", "Job", "Ingress", *ROUTES, "PriorityClass"} <= kinds


@pytest.mark.parametrize("path", WRONG)
def test_a_wrong_value_is_refused_with_its_path(path):
    error = rendered()[path]
    assert isinstance(error, str), "it was rendered"
    assert f"'/{path.replace('.', '/')}'" in error


def test_a_triton_that_cannot_hold_its_shared_memory_is_refused():
    error = rendered()["too small"]
    assert isinstance(error, str)
    assert "pools.adaptive.triton.resources.limits.memory is 512Mi" in error


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


@pytest.mark.parametrize("name", ["cpu, all on", "standalone, all on"])
def test_routers_share_the_claim_of_volume_jobs(name):
    (config_map,) = [each for each in objects(name, "ConfigMap") if each["metadata"]["name"].endswith("-settings")]
    assert 'spool = "/volume-jobs/spool"' in config_map["data"]["settings.toml"]
    sharing = {}
    for component, spec, _ in pods(name):
        claims = [each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if each["name"] == "volume-jobs"]
        mounts = [m for each in spec["containers"] for m in each.get("volumeMounts", ()) if m["name"] == "volume-jobs"]
        if claims or mounts:
            sharing[component] = (claims, [m["mountPath"] for m in mounts])
    component = "router" if name.startswith("cpu") else "standalone"
    assert sharing == {component: (["volume-jobs"], ["/volume-jobs"])}


def test_the_schema_is_the_settings_own():
    command = [sys.executable, str(helm.CHART.parent / "write_schema.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", GOOD)
def test_the_settings_load_and_the_serve_config_says_the_same(name, tmp_path):
    (config_map,) = [each for each in objects(name, "ConfigMap") if each["metadata"]["name"].endswith("-settings")]
    file = tmp_path / "settings.toml"
    file.write_text(config_map["data"]["settings.toml"])
    settings = load(file, {})
    assert settings.features.region
    assert not settings.auth.tokens
    for service in objects(name, "RayService"):
        assert settings_of(service) == settings
        assert settings.shape == "apart"


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_haproxy_is_told_what_it_is_told_on_one_machine(name, tmp_path):
    here = environment(tmp_path, tmp_path, 1)
    for component, spec, _ in pods(name):
        for each in containers(spec).values():
            said = {item["name"]: item.get("value") for item in each.get("env", [])}
            if "RAY_SERVE_ENABLE_HA_PROXY" in said:
                for variable in ("RAY_SERVE_HAPROXY_RETRY_ON", "RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S"):
                    assert said[variable] == here[variable], component


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
    services = {each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in objects(name, "Service")}
    for route in (*objects(name, "HTTPRoute"), *objects(name, "GRPCRoute")):
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        assert services[backend["name"]] == backend["port"]
        assert route["spec"]["parentRefs"] == [{"name": "public"}]


def test_rules_and_dashboards_are_the_observability_folder_s():
    source, copied = helm.ROOT / "deploy" / "observability", helm.CHART / "observability"
    ours = {
        path.relative_to(source): path.read_text() for path in [*source.glob("rules/*.yaml"), *source.glob("dashboards/*.json")]
    }
    theirs = {path.relative_to(copied): path.read_text() for path in [*copied.glob("rules/*"), *copied.glob("dashboards/*")]}
    assert theirs == ours, "run: python deploy/helm/copy_observability.py"
    made = objects("cpu, all on", "PrometheusRule")
    groups = [group for each in made for group in each["spec"]["groups"]]
    assert groups == [
        group for path in sorted(ours) if path.suffix == ".yaml" for group in yaml.safe_load(ours[path])["groups"]
    ]
    boards = [each["data"] for each in objects("cpu, all on", "ConfigMap") if "dashboard" in each["metadata"]["name"]]
    assert {name: json.loads(text) for data in boards for name, text in data.items()} == {
        path.name: json.loads(text) for path, text in ours.items() if path.suffix == ".json"
    }


def test_the_load_test_names_real_scenarios():
    (job,) = objects("cpu, all on", "Job")
    (locust,) = job["spec"]["template"]["spec"]["containers"]
    listed = (helm.ROOT / "loadtests" / "locustfile.py").read_text()
    users = [word for word in locust["args"] if not word.startswith("--")]
    assert users
    assert all(f'"{user}"' in listed for user in users)
    assert Path(locust["command"][2]).name == "locustfile.py"


def test_locust_takes_the_load_test_s_arguments(tmp_path):
    """The real locust, asked with the Job's words which users it would run."""
    (job,) = objects("cpu, all on", "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (thresholds,) = [each for each in objects("cpu, all on", "ConfigMap") if each["metadata"]["name"].endswith("-thresholds")]
    (tmp_path / "thresholds.toml").write_text(thresholds["data"]["thresholds.toml"])
    words = [*container["command"][1:], *container["args"]]
    words = [word.replace("/etc/loadtest", str(tmp_path)).replace("/app/", f"{helm.ROOT}/") for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "locust", *words, "--list"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"S1Http", "S3Http"} <= set(done.stdout.split())
