"""The webhook's certificate: made out to one name by an authority whose key is thrown away once it has signed.

So nothing but the certificate's own key has to be kept, and each renewal brings a new authority; whoever verifies
trusts the former ones as well until they expire, so that copies may change over one after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LIFETIME = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=30)
"""A certificate that lives no longer than this is renewed."""
BACKDATED = timedelta(minutes=5)
"""For servers whose clock is behind."""
OTHER_USAGES = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)
"""Of a key, beside signing."""
AUTHORITIES, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
"""Names in the Secret, as Secrets of type kubernetes.io/tls have them."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that can be served, in PEM."""

    authorities: bytes
    """Whom to trust: who signed it, and who signed the ones before."""
    certificate: bytes
    key: bytes
    expires_seconds: float


def issued(dns_name: str, now_seconds: float, trusted_before: bytes = b"") -> Certificate:
    """A new one; authorities that were trusted before and have not expired stay among those that are to be trusted."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.fromtimestamp(now_seconds, UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def signed(subject: str, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> x509.Certificate:
        usage = dict.fromkeys(OTHER_USAGES, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(f"foresize-webhook-ca-{int(now_seconds)}"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, **usage),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        if not is_authority:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False
            ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return builder.sign(authority_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    authority = signed(f"foresize-webhook-ca-{int(now_seconds)}", authority_key.public_key(), is_authority=True)
    certificate = signed(dns_name, key.public_key(), is_authority=False)
    return Certificate(
        authority.public_bytes(pem) + _unexpired(trusted_before, now),
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate.not_valid_after_utc.timestamp(),
    )


def is_trusted(certificate: bytes, bundle: bytes) -> bool:
    """Whether one of the authorities in the bundle has signed the certificate; both in PEM."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        served, authorities = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return False
    for each in authorities:
        try:
            served.verify_directly_issued_by(each)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _unexpired(bundle: bytes, now: datetime) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return b""
    return b"".join(each.public_bytes(Encoding.PEM) for each in found if each.not_valid_after_utc > now)


def certificate_in(data: Mapping[str, bytes], dns_name: str, now_seconds: float) -> Certificate | str:
    """What a Secret holds, where it can be served for a while; else why it has to be renewed."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    missing = [name for name in (AUTHORITIES, CERTIFICATE, KEY) if not data.get(name)]
    if missing:
        return f"it has no {', '.join(missing)}"
    try:
        certificate = x509.load_pem_x509_certificate(data[CERTIFICATE])
        authorities = x509.load_pem_x509_certificates(data[AUTHORITIES])
        key = load_pem_private_key(data[KEY], password=None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = next(each for each in authorities if each.subject == certificate.issuer)
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, StopIteration, InvalidSignature, x509.ExtensionNotFound) as error:
        return f"it cannot be used ({type(error).__name__}: {error})"
    if key.public_key() != certificate.public_key():
        return f"{KEY} is not the key of {CERTIFICATE}"
    if dns_name not in names.get_values_for_type(x509.DNSName):
        return f"it is not made out to {dns_name}"
    expires = certificate.not_valid_after_utc.timestamp()
    if expires - now_seconds <= RENEWED_BEFORE.total_seconds():
        return f"it expires at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    return Certificate(data[AUTHORITIES], data[CERTIFICATE], data[KEY], expires)
