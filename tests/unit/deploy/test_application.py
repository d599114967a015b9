"""The application of a Serve config: where its settings come from, and that it waits for the models."""

import threading

import pytest
from pydantic import ValidationError
from ray import serve
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

from serving.deploy import application
from serving.deploy.application import Arguments, await_records, records_of, settings_of
from serving.errors import SetupError
from serving.settings import load


def test_settings_come_from_the_arguments_and_secrets_from_the_environment(monkeypatch, tmp_path):
    stale = tmp_path / "settings.toml"
    stale.write_text("[limits]\nmax_objects = 1\n")
    monkeypatch.setenv("MEDSERVE_CONFIG", str(stale))
    monkeypatch.setenv("MEDSERVE_AUTH__TOKENS__CLINIC", "secret")
    settings = settings_of(Arguments(settings={"http": {"port": 8001}}))
    assert settings.http.port == 8001
    assert settings.limits.max_objects == 256
    assert settings.auth.tokens["clinic"].get_secret_value() == "secret"


def test_ray_serve_makes_the_arguments_of_a_config_file(monkeypatch):
    built = []
    application_of_ours = serve.deployment(type("Nothing", (), {})).bind()
    monkeypatch.setattr(application, "build_application", lambda settings: built.append(settings) or application_of_ours)
    call_user_app_builder_with_args_if_necessary(application.app, {"settings": {"router": {"replicas": 3}}, "models": []})
    assert built[0].router.replicas == 3


def test_unknown_arguments_and_settings_are_refused():
    with pytest.raises(ValidationError):
        Arguments(model="litemedsam")
    with pytest.raises(SetupError, match="htpp"):
        settings_of(Arguments(settings={"htpp": {}}))


def test_it_waits_until_the_records_are_published(monkeypatch, tmp_path):
    monkeypatch.setattr(application, "POLL_S", 0.01)
    settings = load(None, {}, repository={"path": tmp_path})
    waiter = threading.Thread(target=await_records, args=(settings, ["synthetic-cxr"], 60.0))
    waiter.start()
    (tmp_path / "synthetic-cxr-clip.json").write_text("{}")
    waiter.join(0.2)
    assert waiter.is_alive()
    (tmp_path / "synthetic-cxr-chexzero.json").write_text("{}")
    waiter.join(60)
    assert not waiter.is_alive()


def test_it_gives_up_with_the_model_s_name(tmp_path):
    settings = load(None, {}, repository={"path": tmp_path})
    with pytest.raises(SetupError, match="litemedsam was not built within 0 s"):
        await_records(settings, ["litemedsam"], 0.0)


def test_a_version_has_a_record_of_its_own():
    assert records_of("litemedsam@2=/models/checkpoints/tuned.pth") == ["litemedsam@2"]
    assert set(records_of("synthetic-cxr")) == {"synthetic-cxr-clip", "synthetic-cxr-chexzero"}
    with pytest.raises(SetupError, match="imaginary"):
        records_of("imaginary@2=/models/checkpoints/tuned.pth")
