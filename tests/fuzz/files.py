"""Files that an administrator puts in place: bundles, certificates, lists, configuration, state."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from restpipe_ca import bundle
from restpipe_ca.errors import CaError
from restpipe_ca.store import INDEX, Store

from restpipe.daemon.known_clients import KnownClients
from restpipe.daemon.peers import PeerTable
from restpipe.errors import ConfigError, RestPipeError
from restpipe.host import config_text
from restpipe.host.config import Role, load
from restpipe.identity.checks import faults_of
from restpipe.identity.material import read_bundle
from restpipe.transport.certificates import load_certificates, read_chain
from restpipe.transport.revocation import Revocations, read_lists
from tests.fuzz.target import Target, one_line
from tests.support.certificates import Made, authority, leaf, revocation_list, uri

DER = serialization.Encoding.DER
HEADER = b"# restpipe-bundle: 1\n# name: web1\n# role: client\n# dial: pipe.example.com:1234\n"


def _key(number: int) -> ec.EllipticCurvePrivateKey:
    """The same in each process, so that what was found in one is found in the next."""
    return ec.derive_private_key(number, ec.SECP256R1())


@functools.cache
def _ca() -> Made:
    return authority("Fuzzed CA", key=_key(1))


@functools.cache
def _web1() -> Made:
    names = [x509.DNSName("WEB1.example"), uri("spiffe://example.org/web1")]
    return leaf("web1", _ca(), names=names, key=_key(2))


@functools.cache
def _folder() -> Path:
    return Path(_temporary().name)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="restpipe-fuzz.")


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def check_bundle(data: bytes) -> None:
    """No message quotes the key."""
    try:
        material = read_bundle(data, "a bundle")
        told = faults_of(material, Role.CLIENT, 0.0)
    except RestPipeError as error:
        told = [one_line(error)]
    try:
        bundle.split(data)
    except CaError as error:
        told.append(one_line(error))
    secrets = [line.decode() for line in _web1().key_pem.splitlines() if not line.startswith(b"--")]
    assert not [text for text in told for secret in secrets if secret in text]


def bundle_seeds() -> Iterator[bytes]:
    whole = HEADER + _web1().key_pem + _web1().pem + _ca().pem
    yield whole
    yield HEADER + _web1().pem + _web1().key_pem + _ca().pem
    yield b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n")
    yield _web1().pem.replace(b"-----END CERTIFICATE-----", b"-----END CERTIFICATE") + _web1().key_pem


def check_certificates(data: bytes) -> None:
    for read in (
        lambda: read_chain([data, _ca().certificate.public_bytes(DER)]),
        lambda: load_certificates(data),
    ):
        try:
            read()
        except ValueError as error:
            one_line(error)


def certificate_seeds() -> Iterator[bytes]:
    for made in (_web1(), _ca(), leaf("", _ca(), ("server",), names=[])):
        yield made.certificate.public_bytes(DER)
        yield made.pem


def check_lists(data: bytes) -> None:
    try:
        found, _ = read_lists(_file("crl.pem", data), [_ca().certificate])
    except ConfigError as error:
        one_line(error)
    else:
        Revocations(found).stale(0.0)


def list_seeds() -> Iterator[bytes]:
    point = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)
    for pem in (
        revocation_list(_ca(), [_web1()], names_key=True),
        revocation_list(_ca(), extensions=[(x509.DeltaCRLIndicator(1), True), (point, True)]),
        revocation_list(authority("Another CA")),
    ):
        yield pem
        yield x509.load_pem_x509_crl(pem).public_bytes(DER)


def check_configuration(data: bytes) -> None:
    """What is in force can be written down, and read again."""
    for role in Role:
        environ = {"RP_RUNTIME_DIR": str(_folder())}
        try:
            config = load(role, environ, _file("given.toml", data))
        except ConfigError as error:
            one_line(error)
            continue
        text = config_text.in_force(config)
        tomllib.loads(text)
        assert load(role, environ, _file("written.toml", text.encode())) == config


def configuration_seeds() -> Iterator[bytes]:
    yield b'[pipe]\nport = 4466\nbind = "::"\nheartbeat_interval_s = 2.5\nbacklog_bytes = "1 MiB"\n'
    yield b'[pipe]\nservers = ["a.example:1", "[::1]:2"]\nserver_name = "spiffe://x/y"\n'
    yield b'[log]\ndebug = true\n[tls]\ndirectory = "id"\n'
    yield b'[statsd]\nhost = ""\nport = ""\n[sockets]\nmode = 0o660\n[handlers]\nthreads = 0x7fffffff\n'


def check_state(data: bytes) -> None:
    """A file of state that is damaged counts as none; an index of the CA is refused."""
    _file("clients.json", data)
    KnownClients(_folder()).load(PeerTable(10, 10))
    _file(INDEX, data)
    with contextlib.suppress(CaError):
        Store(_folder()).records()


def state_seeds() -> Iterator[bytes]:
    yield b'{"web1": "10.0.0.1", "WEB2": ""}'
    yield b'{"version": 1, "certificates": [{"name": "web1", "role": "client", "certificate": "-----BEGIN"}]}'


TARGETS = {
    "bundle": Target(check_bundle, bundle_seeds),
    "certificates": Target(check_certificates, certificate_seeds),
    "lists": Target(check_lists, list_seeds),
    "configuration": Target(check_configuration, configuration_seeds),
    "state": Target(check_state, state_seeds),
}
