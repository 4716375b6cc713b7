"""NATS with mutual TLS: an HTTP gateway, the server, and what answers."""

from __future__ import annotations

from tests.bench.measuring import Subject
from tests.bench.peers.scene import Scene, accepts
from tests.bench.peers.ssh import program
from tests.support.nodes import free_port

SERVER = """\
listen: "127.0.0.1:{port}"
tls {{
  cert_file: "{identity}/certificate.pem"
  key_file: "{identity}/key.pem"
  ca_file: "{identity}/ca.pem"
  verify: true
}}
"""


def subject(scene: Scene) -> Subject:
    port = free_port()
    config = scene.folder / "nats.conf"
    config.write_text(SERVER.format(port=port, identity=scene.authority.server().directory))
    server = scene.start("nats-server", program("nats-server"), "-c", config, ready=lambda: accepts(port))
    environ = {"BENCH_NATS_PORT": str(port), "BENCH_IDENTITY": str(scene.authority.client().directory)}
    responder = scene.app("nats-responder", "nats_responder", environ=environ)
    gateway = scene.gunicorn("nats-gateway", "nats_gateway", environ)
    pids = {"gateway": gateway.pid, "server": server.pid, "responder": responder.pid}
    return Subject("NATS", gateway.socket, "/client/client-1/time", pids)
