from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.errors import SetupError
from serving.settings import load


def test_defaults_bind_to_loopback():
    assert load(environ={}).http.host == "127.0.0.1"


def test_environment_beats_file_and_overrides_beat_both(tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_text("[http]\nport = 1\n[grpc]\nport = 2\n")
    settings = load(file, {"MEDSERVE_HTTP__PORT": "3"}, grpc={"port": 4})
    assert (settings.http.port, settings.grpc.port) == (3, 4)


@pytest.mark.parametrize("environ", [{"MEDSERVE_HTPP__PORT": "1"}, {"MEDSERVE_HTTP__PROT": "1"}])
def test_unknown_keys_are_errors_that_name_the_key(environ: dict[str, str]):
    with pytest.raises(SetupError, match=r"htpp|http\.prot"):
        load(environ=environ)


def test_wrong_values_name_their_place():
    with pytest.raises(SetupError, match=r"limits\.max_objects"):
        load(environ={"MEDSERVE_LIMITS__MAX_OBJECTS": "many"})


def test_unreadable_file_is_one_line(tmp_path: Path):
    with pytest.raises(SetupError, match="settings file"):
        load(tmp_path / "absent.toml", {})
    bad = tmp_path / "bad.toml"
    bad.write_text("[http\n")
    with pytest.raises(SetupError, match="settings file"):
        load(bad, {})


def test_model_lists_come_from_the_environment():
    assert load(environ={"MEDSERVE_REPOSITORY__MODELS": "a,b"}).repository.models == ("a", "b")


def test_secrets_do_not_print():
    settings = load(environ={}, auth={"tokens": {"clinic": "swordfish"}})
    assert "swordfish" not in repr(settings)
    assert settings.auth.tokens["clinic"].get_secret_value() == "swordfish"


def test_the_tree_is_frozen():
    settings = load(environ={})
    with pytest.raises(ValidationError, match="frozen"):
        settings.http.port = 1


def test_a_node_s_environment_names_its_own_parts():
    own = {
        "MEDSERVE_TRITON__ADDRESS": "127.0.0.1:9",
        "MEDSERVE_TRITON__KEY": "secret",
        "MEDSERVE_FEATURES__REGION": "here",
        "MEDSERVE_REPOSITORY__PATH": "/run/models",
    }
    node = load(environ={}).on_this_node(own)
    assert (node.triton.address, node.features.region, str(node.repository.path)) == ("127.0.0.1:9", "here", "/run/models")
    assert node.triton.key.get_secret_value() == "secret"
    assert "secret" not in repr(node)


def test_the_client_s_token_is_no_setting():
    asked = {"MEDSERVE_TOKEN": "swordfish", "MEDSERVE_URL": "http://elsewhere:8000", "MEDSERVE_GRPC": "elsewhere:9000"}
    assert load(environ=asked) == load(environ={})
