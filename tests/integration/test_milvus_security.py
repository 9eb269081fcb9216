"""A Milvus server that asks for a password and for certificates on both sides."""

from __future__ import annotations

import numpy as np
import pytest
import trustme

import embedkit
from embedkit.backends.contract import BackendOptions, CollectionSpec
from embedkit.backends.open import open_backend
from embedkit.errors import BackendUnavailable, ConfigError
from embedkit.testing.servers import milvus_server

pytestmark = pytest.mark.own_server
PASSWORD = "Milvus"  # that of a new server's root


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """PEM files of an authority, of the server and of a client."""
    folder = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, issued in (
        ("server", authority.issue_cert("localhost", "127.0.0.1")),
        ("client", authority.issue_cert("client@example.org")),
        ("stranger", trustme.CA().issue_cert("client@example.org")),
    ):
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    return folder


@pytest.fixture(scope="module")
def guarded(certificates, tmp_path_factory):
    """The URL of a server with passwords and mutual TLS."""
    arguments = ["--authorization-enabled", "true", "--tls-mode", "2"]
    for option, name in (("server-pem", "server.pem"), ("server-key", "server.key"), ("ca-pem", "ca.pem")):
        arguments += [f"--{option}-path", str(certificates / name)]
    client = {
        "secure": True,
        "user": "root",
        "password": PASSWORD,
        "ca_pem_path": str(certificates / "ca.pem"),
        "client_pem_path": str(certificates / "client.pem"),
        "client_key_path": str(certificates / "client.key"),
        "server_name": "localhost",
    }
    with milvus_server(tmp_path_factory.mktemp("guarded"), arguments, client) as server:
        yield server.url


def options(folder, *, password=PASSWORD, client="client", **changes):
    given = {
        "timeout": 10.0,
        "user": "root",
        "password": password,
        "tls_ca": str(folder / "ca.pem"),
        "tls_cert": str(folder / f"{client}.pem"),
        "tls_key": str(folder / f"{client}.key"),
        "tls_server_name": "localhost",
        **changes,
    }
    return BackendOptions(**given)


def test_the_right_password_and_certificates_let_one_in(guarded, certificates):
    backend = open_backend(guarded, options(certificates))
    backend.create(CollectionSpec("c", 4))
    backend.upsert("c", np.array([1, 2]), np.eye(2, 4, dtype=np.float32))
    assert backend.search("c", np.eye(1, 4, dtype=np.float32), 1).ids.tolist() == [[1]]
    backend.drop("c")
    backend.close()


def test_the_settings_reach_the_server(guarded, certificates, tmp_path, monkeypatch):
    """From a config file and, for the password, the environment."""
    config = tmp_path / "embedkit.toml"
    config.write_text(
        f"backend = '{guarded.replace('//', '//root@')}'\n[backend_options]\ntls_server_name = 'localhost'\n"
        + "".join(
            f"tls_{name} = '{certificates / file}'\n" for name, file in (("ca", "ca.pem"), ("cert", "client.pem"))
        )
        + f"tls_key = '{certificates / 'client.key'}'\n"
    )
    monkeypatch.setenv("EMBEDKIT_BACKEND_OPTIONS__PASSWORD", PASSWORD)
    with embedkit.connect(config, home=tmp_path) as kit:
        assert kit._resources.backend.list() == ()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"password": "wrong-secret"}, BackendUnavailable, "password and TLS settings"),
        ({"client": "stranger"}, BackendUnavailable, "does not answer"),
        ({"tls_ca": None, "tls_cert": None, "tls_key": None}, BackendUnavailable, "does not answer"),
        ({"tls_ca": "/nowhere/ca.pem"}, ConfigError, "tls_ca"),
    ],
)
def test_anything_else_is_refused_with_a_reason_and_no_secret(guarded, certificates, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        open_backend(guarded, options(certificates, **changes)).list()
    assert "wrong-secret" not in str(caught.value)
