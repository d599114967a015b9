"""The images, as far as their files tell: what they install is what is pinned, nobody is root, no weights are copied."""

import importlib.metadata
import re
import shlex
import tomllib

import helm
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serving.settings import load

DOCKER = helm.ROOT / "deploy" / "docker"
FILES = ("Dockerfile", "triton.Dockerfile")
PROJECT = tomllib.loads((helm.ROOT / "pyproject.toml").read_text())["project"]
TARGETS = {"serving": {"serve", "local"}, "builder": {"serve", "local", "build"}, "loadtest": {"serve", "local", "bench"}}
KEY = "${MEDSERVE_TRITON_KEY:?set it to a secret of your own}"


def instructions(name):
    """(instruction, words) of a Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip():
            first, _, rest = line.strip().partition(" ")
            yield first.upper(), rest.strip()


def stages(name):
    """stage -> (parent, its instructions), in order."""
    found = {}
    for instruction, rest in instructions(name):
        if instruction == "FROM":
            parent, _, stage = rest.partition(" AS ")
            found[stage or "final"] = (parent, [])
            stage_at_work = found[stage or "final"][1]
        else:
            stage_at_work.append((instruction, rest))
    return found


def installs(name, stage):
    """The `pip install` command lines of a stage, of those that it is built on and of those that it copies from."""
    every = stages(name)
    if stage not in every:
        return []
    parent, own = every[stage]
    before = installs(name, parent)
    for instruction, rest in own:
        if instruction == "COPY" and rest.startswith("--from="):
            before += installs(name, rest.split()[0].removeprefix("--from="))
    commands = [part.strip() for kind, rest in own if kind == "RUN" for part in rest.split("&&")]
    return before + [shlex.split(command) for command in commands if "pip install" in command]


def pins():
    lines = (helm.ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def closure(requirements):
    """name -> version of everything that these need, as it is installed here from the same constraints."""
    found, left = {}, [Requirement(each) for each in requirements]
    while left:
        requirement = left.pop()
        key = (canonicalize_name(requirement.name), tuple(sorted(requirement.extras)))
        if key in found:
            continue
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found[key] = None
            continue
        found[key] = distribution.version
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                left.append(needed)
    return {name: version for (name, _), version in found.items()}


@pytest.mark.parametrize("name", FILES)
def test_bases_are_pinned_and_the_last_user_is_nobody_special(name):
    every = stages(name)
    for parent, _ in every.values():
        assert parent in every or re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", parent), parent
    for stage in (set(TARGETS) & set(every)) or {"final"}:
        users = [rest for kind, rest in every[stage][1] if kind == "USER"]
        assert users[-1:] == ["1000:1000"], stage
    assert not [rest for kind, rest in instructions(name) if kind == "ADD"]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_installed_is_what_is_pinned(target):
    commands, extras = installs("Dockerfile", target), set()
    assert commands
    for words in commands:
        assert words[words.index("--constraint") + 1] == "constraints.txt"
        (project,) = [word for word in words if word.startswith(".")]
        extras |= set(project.removeprefix(".[").removesuffix("]").split(","))
    assert extras == TARGETS[target]
    wanted = [*PROJECT["dependencies"], *(each for extra in extras for each in PROJECT["optional-dependencies"][extra])]
    pinned = pins()
    direct = {canonicalize_name(Requirement(each).name) for each in wanted}
    assert not direct - set(pinned), "not pinned"
    for name, version in closure(wanted).items():
        if version is None:  # not installed here: the test environment has no load tests
            continue
        if name not in ("pip", "setuptools", "wheel"):
            assert pinned.get(name, "").split("+")[0] == version.split("+")[0], f"{name} is {version}"


def test_system_packages_are_pinned():
    text = (DOCKER / "Dockerfile").read_text()
    (listed,) = re.findall(r"apt-get install -y --no-install-recommends (.+?) \\", text)
    assert all("=" in package for package in listed.split())


def test_weights_and_built_models_stay_outside():
    ignored = (helm.ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert let_in == {"pyproject.toml", "constraints.txt", "README.md", "serving", "loadtests"}
    copied = [rest for kind, rest in instructions("Dockerfile") if kind == "COPY" and not rest.startswith("--from")]
    assert {word for rest in copied for word in rest.split()[:-1]} <= let_in


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_compose_starts_triton_as_the_chart_does(compose):
    (deployment,) = [
        each
        for each in helm.render({"one": helm.profile("standalone", processor="gpu")})["one"]
        if each["kind"] == "Deployment"
    ]
    containers = {each["name"]: each for each in deployment["spec"]["template"]["spec"]["containers"]}
    triton = containers["triton"]
    theirs = [word.replace("$(MEDSERVE_TRITON__KEY)", KEY) for word in [*triton["command"], *triton["args"]]]
    assert compose["services"]["triton"]["command"] == theirs
    assert compose["services"]["medserve"]["command"] == containers["medserve"]["command"]


def test_compose_settings_load_and_fit_the_shared_memory(compose):
    environment = compose["services"]["medserve"]["environment"]
    settings = load(None, environment)
    assert settings.features.region == "medserve_features"
    assert compose["services"]["pod"]["shm_size"] >= settings.features.budget_bytes + 456 * 2**20
    assert compose["services"]["prepare"]["environment"] == environment | {"MEDSERVE_HOME": "/models/home"}


def test_compose_builds_the_targets_that_there_are(compose):
    version = PROJECT["version"]
    for name, service in compose["services"].items():
        assert service["image"].endswith(f":{version}"), name
        build = service.get("build")
        if build:
            file = build["dockerfile"].rsplit("/", 1)[-1]
            assert build.get("target", "final") in stages(file)
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["user"] == ("0:0" if name == "volumes" else "1000:1000")
    assert not compose["services"]["volumes"].get("ports")


def test_the_chart_s_version_is_the_package_s():
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == PROJECT["version"]
    rendered = helm.render({"cpu": helm.profile("cpu")})["cpu"]
    (service,) = [each for each in rendered if each["kind"] == "RayService"]
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == pins()["ray"]
