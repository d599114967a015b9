"""The chart, rendered by Helm's library: valid for every supported Kubernetes, and the settings that it makes of its values."""

import copy
import functools
import json
import subprocess
import sys

import helm
import jsonschema
import kubernetes_validate
import pytest
import yaml
from charts import GOOD, WRONG, objects, pods, rendered, settings_of

from serving.settings import load

VERSIONS = ("1.34", "1.35", "1.36", "1.37")
CRDS = helm.ROOT.parent / "shared" / "data" / "crds"
CUSTOM = {
    "RayService": "ray.io_rayservices",
    "PodMonitor": "monitoring.coreos.com_podmonitors",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules",
    "ScaledObject": "keda.sh_scaledobjects",
}
ROUTES = ("HTTPRoute", "GRPCRoute")
"""The Gateway API's: their few fields are looked at here; docs/deploy.md says which schemas they were checked against."""


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
