"""Renderings of the chart that its tests look at, all by one run of Helm, and what is in them."""

import functools

import helm
import yaml

from serving.settings import load

PROFILES = ("cpu", "gpu", "standalone")
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
AUTOSCALED = {"autoscaling": {"enabled": True}, "settings": {"pools": {"adaptive": {"autoscale": {"max_replicas": 4}}}}}
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3}


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
