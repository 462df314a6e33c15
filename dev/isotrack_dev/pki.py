"""Make the certificates of one cluster: a CA, the API server's, and one client certificate per component.

All keys are made here, for one stack, and end with its state folder. Identities are those that Kubernetes expects, so
that RBAC and the Node authorizer decide as on any cluster. Source: kubernetes.io/docs/setup/best-practices/certificates.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=30)
"""A stack that runs longer has to be started again."""
SKEW = datetime.timedelta(hours=1)
"""Certificates begin this much in the past, for clocks that jump back."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: str
    key: str


class Authority:
    """A CA that signs for one cluster. It lives in memory only: nothing can be signed after the start."""

    def __init__(self, now: datetime.datetime) -> None:
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "isotrack local stack")])
        builder = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.certificate = _pem(builder.sign(self._key, hashes.SHA256()))

    def client(self, name: str, *groups: str) -> Pair:
        """Sign for a user `name` in `groups` (Kubernetes reads them from CN and O)."""
        return self._pair(name, groups, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def server(self, name: str, addresses: Sequence[IPv4Address], names: Sequence[str]) -> Pair:
        """Sign for a server that is reached at these addresses and DNS names."""
        alternatives = [*(x509.IPAddress(address) for address in addresses), *(x509.DNSName(dns) for dns in names)]
        return self._pair(name, (), ExtendedKeyUsageOID.SERVER_AUTH, alternatives)

    def _pair(
        self, name: str, groups: Sequence[str], usage: x509.ObjectIdentifier, alternatives: Sequence[x509.GeneralName]
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key()).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return Pair(_pem(builder.sign(self._key, hashes.SHA256())), private_pem(key))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - SKEW)
            .not_valid_after(self._now + LIFETIME)
        )


def signing_pair() -> Pair:
    """Make the key pair that signs service account tokens: `certificate` holds the bare public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Pair(public.decode(), private_pem(key))


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Write a private key in the form that Go programs read (SEC 1)."""
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
