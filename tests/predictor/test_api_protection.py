"""What the services tell is told to those who carry the token, over TLS where that is asked for."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from autoscaler.api.server import RunningServer, start_server
from predictor.api import protection
from predictor.api.protection import Protection
from predictor.errors import ProtectionFailed


def an_app() -> Starlette:
    def told(_: object) -> PlainTextResponse:
        return PlainTextResponse("told\n")

    return Starlette(routes=[Route(path, told) for path in ("/healthz", "/readyz", "/metrics", "/decisions")])


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 whose subject is the name."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


def test_health_is_told_to_anybody_and_the_rest_to_who_has_the_token(tmp_path: Path) -> None:
    """A missing and a wrong token are refused alike, without saying which."""
    (tmp_path / "token").write_text("s3cret\n")
    client = TestClient(Protection(tmp_path / "token").guarded(an_app()))

    assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "Basic s3cret"}):
        refusal = client.get("/decisions", headers=headers)
        assert (refusal.status_code, refusal.headers["www-authenticate"]) == (401, "Bearer")
        assert "s3cret" not in refusal.text
    assert client.get("/metrics", headers={"Authorization": "Bearer s3cret"}).text == "told\n"


def test_without_a_token_file_everything_is_told() -> None:
    """As it is by default, on the loopback address."""
    assert TestClient(Protection().guarded(an_app())).get("/decisions").text == "told\n"


def test_a_token_that_changes_is_taken_up(tmp_path: Path) -> None:
    """A Secret that is rotated needs no restart; one that became unreadable leaves the token before in force."""
    file = tmp_path / "token"
    file.write_text("old")
    guarded = Protection(file)
    client = TestClient(guarded.guarded(an_app()))
    guarded._looked_at_seconds -= protection.LOOK_SECONDS
    file.write_text("new")

    assert client.get("/metrics", headers={"Authorization": "Bearer old"}).status_code == 401
    guarded._looked_at_seconds -= protection.LOOK_SECONDS
    file.unlink()
    assert client.get("/metrics", headers={"Authorization": "Bearer new"}).status_code == 200


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[RunningServer, Protection, Path]]:
    """A server that speaks TLS."""
    guarded = Protection(None, *certificate(tmp_path, "first"))
    server = start_server(an_app(), "127.0.0.1", 0, guarded)
    yield server, guarded, tmp_path
    server.stop()


def test_a_server_with_a_certificate_speaks_tls(secured: tuple[RunningServer, Protection, Path]) -> None:
    """And a newer certificate is shown to the next connection."""
    server, guarded, folder = secured
    assert server.address.startswith("https://")
    trusted = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    assert httpx2.get(f"{server.address}/healthz", verify=trusted).text == "told\n"

    certificate(folder, "second")
    guarded._looked_at_seconds -= protection.LOOK_SECONDS
    guarded.refresh()

    renewed = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    assert httpx2.get(f"{server.address}/healthz", verify=renewed).text == "told\n"


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """At the start, with the setting."""
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "lines").write_text("s3cret\nmore\n")
    (tmp_path / "letters").write_text("s3crét")
    cert_file, _ = certificate(tmp_path, "one")

    for name, flaw in (("lines", "holds more than one line"), ("letters", "holds characters that no header may hold")):
        with pytest.raises(ProtectionFailed, match=flaw) as caught:
            Protection(tmp_path / name)
        assert "s3cr" not in str(caught.value)
    with pytest.raises(ProtectionFailed, match=r"serving.token_file: .*absent: No such file"):
        Protection(tmp_path / "absent")
    with pytest.raises(ProtectionFailed, match="is empty"):
        Protection(tmp_path / "empty")
    with pytest.raises(ProtectionFailed, match="belong together"):
        Protection(None, cert_file, None)
    with pytest.raises(ProtectionFailed, match=r"serving\.tls_cert_file"):
        Protection(None, cert_file, tmp_path / "empty")
