"""What this host is called: the names that its own server's certificate gets."""

from __future__ import annotations

import socket
import threading

from restpipe_ca import profiles

LOOKUP_S = 3.0
"""How long the resolver may take (seconds): with silent name servers it takes half a minute."""
ON_THIS_HOST = ("localhost", "127.0.0.1", "::1")


def host_name() -> str:
    """What this host calls itself, in lower case. It may be no name that a certificate can have."""
    return socket.gethostname().lower().rstrip(".")


def host_names() -> tuple[str, ...]:
    """This host's names as others may know it, the one with a domain first.

    What cannot be a host name (`my_server`) is left out: there may be none.
    """
    short = host_name()
    full = short if "." in short else _full_name(short)
    # The resolver may know this host by nothing better than its loopback's name.
    reachable = "." in full and not full.startswith("localhost")
    names = dict.fromkeys((full if reachable else short, short))
    return tuple(name for name in names if name != "localhost" and is_usable(name))


def server_names() -> tuple[str, ...]:
    """The names of a server on this host, unless others are given."""
    return (*host_names(), *ON_THIS_HOST)


def is_usable(name: str) -> bool:
    """Whether a certificate can bear it as its own name."""
    return profiles.host_name_fault(name, profiles.MAX_COMMON_NAME) == ""


def _full_name(short: str) -> str:
    found = [short]
    # Not to be waited for at the end either.
    asking = threading.Thread(target=lambda: found.append(socket.getfqdn(short)), daemon=True)
    asking.start()
    asking.join(LOOKUP_S)
    return found[-1].lower().rstrip(".")
