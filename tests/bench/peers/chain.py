"""The bare chain: the same four kinds of process as RestPipe's, with nothing in them but the way through."""

from __future__ import annotations

from tests.bench.measuring import Subject
from tests.bench.peers.scene import Scene, listens
from tests.support.nodes import free_port


def subject(scene: Scene) -> Subject:
    port = str(free_port())
    near_socket, far_socket = (scene.folder / f"chain-{side}.sock" for side in ("near", "far"))
    server, client = scene.authority.server().directory, scene.authority.client().directory
    near = scene.app("near", "chain", "near", near_socket, port, server, ready=lambda: listens(near_socket))
    far = scene.app("far", "chain", "far", far_socket, port, client, ready=far_socket.exists)
    handler = scene.app("handler", "chain", "handler", far_socket)
    front = scene.gunicorn("front", "chain_front", {"BENCH_CHAIN_SOCKET": str(near_socket)})
    pids = {"front": front.pid, "near": near.pid, "far": far.pid, "handler": handler.pid}
    return Subject("bare chain", front.socket, "/client/client-1/time", pids)
