"""Where Ray is, checked before anything is started.

It is a cluster, known by its address, or a Ray of our own, which needs a folder for its sockets.
Ray itself waits minutes for a cluster that is not there, and ends in a traceback where a path is
too long for a socket.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from backstop.platform.params import BadInput

TIMEOUT = 10.0  # seconds that a cluster gets to answer, its name's look-up included
# where Ray's own files go when the folder given is too long
SHORT = ("/tmp", "/var/tmp")  # noqa: S108
# Linux has 108 bytes for the path of a socket and macOS 104, the zero at the end included: unix(7),
# sys/un.h
LONGEST = (104 if sys.platform == "darwin" else 108) - 1
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]@]+):([0-9]{1,5})")
EXAMPLES = (
    "the address of a cluster is host:port, such as 10.0.0.5:6379, "
    "or auto for the one started on this machine"
)
OTHERWISE = (
    "start it with `ray start --head`, "
    "or leave RAY_ADDRESS and --ray-address out for a private local Ray"
)
# What an HTTP/2 client says first, with an empty SETTINGS frame; a server's first frame is SETTINGS
# too: RFC 9113 sections 3.4 and 6.5
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4


def check_address(address: str | None) -> str | Path:
    """The host:port of the cluster that was asked for, which answers.

    For None and ``local`` it is the folder in which a Ray of our own keeps its files. Raises
    BadInput, after TIMEOUT seconds at most, with what was given and what to do.
    """
    if not address or address == "local":
        return room()
    given = f"RAY_ADDRESS or --ray-address {address!r}"
    if address.startswith("ray://"):
        raise BadInput(
            f"{given}: Ray's client cannot run a sweep; "
            f"give the same command on a node of the cluster; {EXAMPLES}"
        )
    endpoint = _started_here() if address == "auto" else address
    match = ADDRESS.fullmatch(endpoint)
    if not match or not 0 < int(match[2]) < 2**16:
        raise BadInput(f"{given} is not allowed; {EXAMPLES}")
    if problem := _silent(match[1].strip("[]"), int(match[2])):
        raise BadInput(f"{given}: there is no Ray cluster at {endpoint}: {problem}; {OTHERWISE}")
    return endpoint


def temporary() -> Path:
    """The folder in which Ray makes its folder ``ray``: it looks here itself."""
    names = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    return Path(next((os.environ[name] for name in names if os.environ.get(name)), SHORT[0]))


def room() -> Path:
    """The folder for a local Ray's files.

    It is the usual one, or a short one where a socket's path would be too long in it.
    """
    usual = temporary()
    for folder in (usual, *map(Path, SHORT)):
        if _socket_bytes(folder) <= LONGEST and (folder == usual or os.access(folder, os.W_OK)):
            return folder
    longest = LONGEST - _socket_bytes(Path("/"))
    raise BadInput(
        f"the temporary folder {usual} is too long for Ray's sockets; "
        f"set RAY_TMPDIR to a path of at most {longest} bytes"
    )


def _socket_bytes(folder: Path) -> int:
    """Bytes in the longest path of a socket that Ray makes.

    Ray names a session by the time and the process.
    """
    session = f"session_2026-01-31_23-59-59_000000_{os.getpid()}"
    return len(os.fsencode(folder / "ray" / session / "sockets" / "plasma_store"))


def _started_here() -> str:
    """The address of the cluster that `ray start` has started or joined on this machine."""
    file = temporary() / "ray" / "ray_current_cluster"
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        given = "RAY_ADDRESS or --ray-address 'auto'"
        raise BadInput(
            f"{given}: no cluster was started on this machine ({file} is not there); {OTHERWISE}"
        ) from None


def _silent(host: str, port: int) -> str:
    """Why nothing that could be Ray answers there; empty where something does."""
    problem, seen = [f"no answer within {TIMEOUT:.0f} seconds"], _seen(host)

    def ask() -> None:
        problem[0] = _asked(seen, port)

    asking = Thread(target=ask, daemon=True)  # looking a name up has no timeout of its own
    asking.start()
    asking.join(TIMEOUT)
    return problem[0]


def _asked(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), TIMEOUT) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return ""
            connection.sendall(HELLO)
            answer = b""
            while len(answer) < 4 and (more := connection.recv(4 - len(answer))):
                answer += more
    except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
        return str(getattr(error, "strerror", None) or error).lower()
    return "" if len(answer) == 4 and answer[3] == SETTINGS else "what answers there is no Ray"


def _seen(host: str) -> str:
    """The host as Ray takes it: this machine by the address that others see."""
    if host not in ("localhost", "127.0.0.1", "::1"):
        return host
    import ray

    own: Any = ray.util.get_node_ip_address
    return str(own())
