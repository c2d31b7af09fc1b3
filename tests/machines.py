"""Machines within this machine, which share a network and nothing else.

Each has an address of its own on a bridge, its own processes, its own temporary files and its own
shared memory; all other file systems can only be read there. It can be switched off, and its cable
can be pulled. It takes Linux and root.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAMS = [CHECKOUT, Path(sys.prefix)]  # what a machine has installed
NETWORK = "10.213.47"
BRIDGE = "backstop0"
HOST = f"{NETWORK}.1"  # this machine, as the others see it
PATIENCE_S = 60.0

# the programs may be in a temporary folder themselves, which is moved out of the way first
INSIDE = """
mount -t tmpfs tmpfs /mnt
for program in {programs}; do
    mkdir -p /mnt/keep$program && mount --rbind $program /mnt/keep$program
done
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mkdir {home}
for program in {programs}; do
    case $program in /tmp/*) mkdir -p $program && mount --rbind /mnt/keep$program $program;; esac
    mount -o remount,bind,ro $program 2> /dev/null || true
done
umount -R -l /mnt
ip link set lo up
exec sleep infinity
"""


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


class Machine:
    """One of them, by the last number of its address."""

    HOME = Path("/tmp/home")  # where its commands are run

    def __init__(self, number: int) -> None:
        self.address = f"{NETWORK}.{number}"
        self._plug = f"{BRIDGE}-{number}"
        programs = " ".join(shlex.quote(str(folder)) for folder in PROGRAMS)
        separate = ["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self._power = subprocess.Popen(
            [
                "unshare",
                *separate,
                "sh",
                "-e",
                "-c",
                INSIDE.format(programs=programs, home=self.HOME),
            ],
        )
        self._started: list[subprocess.Popen[bytes]] = []
        self._first = self._await_first()
        _run("ip", "link", "add", self._plug, "type", "veth", "peer", "name", "cable")
        _run("ip", "link", "set", "cable", "netns", str(self._first))
        _run("ip", "link", "set", self._plug, "master", BRIDGE, "up")
        self.run(["ip", "addr", "add", f"{self.address}/24", "dev", "cable"])
        self.run(["ip", "link", "set", "cable", "up"])

    def _await_first(self) -> int:
        """The first process in the machine, once it sleeps."""
        children = Path("/proc", str(self._power.pid), "task", str(self._power.pid), "children")
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self._power.poll() is None, "the machine does not start"
            for child in children.read_text().split():
                with suppress(OSError):
                    if Path("/proc", child, "cmdline").read_bytes().startswith(b"sleep"):
                        return int(child)
            time.sleep(0.05)
        pytest.fail("the machine does not start")

    def _inside(self, words: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self._first}", "--mount", "--net", "--pid", "--", *words]

    def run(self, words: Sequence[str]) -> None:
        """Run a command in the machine to its end."""
        subprocess.run(self._inside(words), check=True, capture_output=True)

    def start(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        log: IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """Start a command in the machine's own folder."""
        line = ["sh", "-c", 'cd "$HOME" && exec "$@"', "sh", *words]
        own = {"HOME": str(self.HOME), "TMPDIR": str(self.HOME.parent)}
        started = subprocess.Popen(
            self._inside(line),
            env={**os.environ, **own, **environment},
            stdout=log,
            stderr=log,
        )
        self._started.append(started)
        return started

    def file(self, name: str) -> Path:
        """A file in the machine's own folder, as it is seen from outside."""
        return Path(f"/proc/{self._first}/root{self.HOME}", name)

    def commands(self) -> Iterator[str]:
        """The commands of its processes."""
        ours = _processes_of(self._first)
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if _processes_of(int(folder.name)) == ours:
                    yield (folder / "cmdline").read_bytes().decode(errors="replace")

    def pull_cable(self) -> None:
        """It reaches nobody any more."""
        _run("ip", "link", "set", self._plug, "down")

    def plug_in(self) -> None:
        """It reaches the others again."""
        _run("ip", "link", "set", self._plug, "up")

    def switch_off(self) -> None:
        """All of its processes are gone at once, and all that it had."""
        self._power.kill()
        self._power.wait()
        for process in self._started:
            process.wait()


def _processes_of(pid: int) -> str:
    """Which processes see each other: those of one machine."""
    return str(Path("/proc", str(pid), "ns", "pid").readlink())


class Network:
    """A bridge, and the machines at it."""

    def __init__(self) -> None:
        self.machines: list[Machine] = []

    def machine(self) -> Machine:
        """One more machine."""
        made = Machine(2 + len(self.machines))
        self.machines.append(made)
        return made


@contextmanager
def network() -> Iterator[Network]:
    """A network, which is gone after the block with all that is on it."""
    _skip_where_impossible()
    made = Network()
    try:
        _run("ip", "addr", "add", f"{HOST}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        yield made
    finally:
        for machine in made.machines:
            machine.switch_off()
        subprocess.run(["ip", "link", "del", BRIDGE], check=False)


def _skip_where_impossible() -> None:
    """Make the bridge, or skip the test."""
    if any(shutil.which(program) is None for program in ("ip", "unshare", "nsenter")):
        pytest.skip("there is no ip, unshare or nsenter")
    done = subprocess.run(
        ["ip", "link", "add", BRIDGE, "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no network can be made, which takes root: {done.stderr.strip()}")
