"""`python -m tests.demo [--keep] [--size-mib N]`: exit status 0 if everything was as it must be."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.identities import Authority
from tests.support.memory import peaks, resident
from tests.support.nodes import Node, Pair
from tests.support.processes import command_line

MIB = 1 << 20
MOST_GROWTH = 32 * MIB
HANDLERS = {"handlers": {"path": str(Path(__file__).parent), "event_class": "demo_handlers.DemoHandler"}}


class DemoFailed(Exception):
    """Something was not as it must be."""


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="rp-demo-") as name:
        try:
            show(Path(name), options.size_mib, options.keep)
        except DemoFailed as failure:
            print(f"\nFAILED: {failure}", file=sys.stderr)
            return 1
    print("\nAll of it was as it must be.")
    return 0


def show(folder: Path, size_mib: int, keep: bool) -> None:
    """The whole demo in an empty folder."""
    files = folder / "files"
    digest = _make_file(files, size_mib)
    _title("A CA and two identities, by restpipe-ca")
    authority = Authority(folder)
    with Pair(folder, authority, client=HANDLERS, environ={"RP_FILES_ROOT": str(files)}) as pair:
        print(authority.run("list"), end="")
        _title("A server and a client, by `restpipe run server` and `restpipe run client`")
        pair.run()
        _print_processes(pair)
        four_requests(pair)
        large_file(pair, folder / "fetched", digest, size_mib)
        if keep:
            _stay(pair)
        _title("End")
        pair.stop()
        print("Both have ended in good order.")


def four_requests(pair: Pair) -> None:
    """The walkthrough: each side asks the other for the time, and to join two texts."""
    _title("The client asks the server")
    _expect(time_in(pair.client, "/server/time", "time_from_server"))
    cat = "cat//hello%20/world"
    _expect(curl_json(pair.client, f"/server/{cat}") == {"result_from_server": "hello world"})
    _title("The server asks the client")
    _expect(time_in(pair.server, "/client/localhost/time", "time_from_client"))
    _expect(curl_json(pair.server, f"/client/localhost/{cat}") == {"result_from_client": "hello world"})


def time_in(node: Node, target: str, key: str) -> bool:
    told = curl_json(node, target)
    return list(told) == [key] and abs(float(told[key]) - time.time()) < 60


def large_file(pair: Pair, fetched: Path, digest: str, size_mib: int) -> None:
    """The server's side fetches a file from the client's: byte for byte, in bounded memory."""
    _title(f"The server fetches a file of {size_mib} MiB from the client")
    curl_json(pair.server, "/client/client-1/files")
    processes = _processes(pair)
    before = resident(processes)
    started = time.monotonic()
    _curl(pair.server, "/client/client-1/file//large.bin", "--output", str(fetched))
    seconds = time.monotonic() - started
    most = peaks(processes)
    print(f"{fetched.stat().st_size} bytes in {seconds:.1f} s ({size_mib / seconds:.0f} MiB/s)")
    print(f"SHA-256 there: {digest}\nSHA-256 here:  {_sha256(fetched)}")
    _expect(_sha256(fetched) == digest, "the file came through changed")
    print("\nMemory of each process, before and at its peak:")
    for pid, name in processes.items():
        grown = most[pid] - before[pid]
        print(f"  {name:<18} {_mib(before[pid])} -> {_mib(most[pid])} ({grown / MIB:+.1f} MiB)")
        _expect(grown <= MOST_GROWTH, f"{name} grew by more than {MOST_GROWTH // MIB} MiB")


def curl_json(node: Node, target: str) -> Any:
    """The answer to a GET by the real curl, shown."""
    body = _curl(node, target)
    print(body)
    return json.loads(body)


def _curl(node: Node, target: str, *more: str) -> str:
    command = ["curl", "--unix-socket", str(node.http.path), f"http://localhost{target}", *more]
    print("$", " ".join(command), flush=True)
    done = subprocess.run(
        [*command, "--silent", "--show-error", "--fail-with-body"], capture_output=True, text=True
    )
    _expect(
        done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr}{done.stdout}\n{node.logs()}"
    )
    return done.stdout


def _print_processes(pair: Pair) -> None:
    for pid, name in _processes(pair).items():
        print(f"  {pid:>7}  {name}")


def _processes(pair: Pair) -> dict[int, str]:
    return {pid: _name(pid, node.role) for node in (pair.server, pair.client) for pid in node.pids()}


def _name(pid: int, role: str) -> str:
    """`client handlers`, of `… -m restpipe handlers client …`."""
    words = command_line(pid).partition("-m restpipe ")[2].split()
    return f"{role} {words[0] if words else '?'}"


def _make_file(folder: Path, size_mib: int) -> str:
    folder.mkdir()
    digest = hashlib.sha256()
    with (folder / "large.bin").open("wb") as file:
        for _ in range(size_mib):
            piece = os.urandom(MIB)
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stay(pair: Pair) -> None:
    _title("It stays up; end it with Ctrl-C. Try, for example")
    for node, target in (
        (pair.client, "/server/time"),
        (pair.server, "/client/client-1/time"),
        (pair.server, "/client/client-1/file//large.bin --output large.bin"),
    ):
        print(f"curl --unix-socket {node.http.path} http://localhost{target}", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _mib(size: int) -> str:
    return f"{size / MIB:6.1f} MiB"


def _expect(true: bool, otherwise: str = "that is not the answer it must be") -> None:
    if not true:
        raise DemoFailed(otherwise)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--size-mib", type=int, default=200, metavar="N", help="size of the file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
