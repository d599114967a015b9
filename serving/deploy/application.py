"""The application that a Serve config file names: ``import_path: serving.deploy.application:app``.

Settings come as the application's arguments, so that a change of them is a change of the Serve config: Ray Serve then replaces
the replicas in place, where a changed pod template would replace the whole Ray cluster.
"""

# Annotations stay classes here: Ray Serve looks at `app`'s to make its arguments.
import logging
import os
import time
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve

from serving.build.catalogue import find
from serving.deployments import build_application
from serving.errors import SetupError
from serving.settings import Settings, load

log = logging.getLogger(__name__)

POLL_S = 5.0


class Arguments(BaseModel):
    """`settings`: the tree without secrets. `models`: as `prepare` takes them. `wait_s`: how long these may take to build."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = {}
    models: list[str] = []
    wait_s: float = 1800.0


def app(arguments: Arguments) -> serve.Application:
    """The application. Waits until the first pod of each pool has built its models. Raises SetupError."""
    settings = settings_of(arguments)
    await_records(settings, arguments.models, arguments.wait_s)
    return build_application(settings)


def settings_of(arguments: Arguments) -> Settings:
    """The arguments' settings over this environment's, which holds the secrets.

    The settings file of the pod is not read: it is the same ConfigMap, but the kubelet brings a change of it minutes later.
    """
    environ = {key: value for key, value in os.environ.items() if key != "MEDSERVE_CONFIG"}
    return load(None, environ, **arguments.settings)


def await_records(settings: Settings, models: list[str], wait_s: float) -> None:
    """Wait for the records of built models, which the pools' pods publish. Raises SetupError."""
    wanted = [name for model in models for name in records_of(model)]
    until = time.monotonic() + wait_s
    while missing := [name for name in wanted if not (settings.repository.path / f"{name}.json").exists()]:
        if time.monotonic() > until:
            raise SetupError(f"model {missing[0]} was not built within {wait_s:.0f} s: see the log of its pod's init container")
        log.info("waiting for %s to be built", ", ".join(missing))
        time.sleep(POLL_S)


def records_of(model: str) -> list[str]:
    """The names of the records that one of `models` makes: NAME, NAME=FILE or NAME@VERSION=FILE. Raises SetupError."""
    name, at, version = model.partition("=")[0].partition("@")
    return [f"{served}{at}{version}" for served, _ in find(name).models]
