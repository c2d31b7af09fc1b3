"""Who takes part in the comparison of rounds: Backstop, another commit of it, PyTorch by hand, its
kernels alone, and other projects in environments of their own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import peers
import work

HERE = Path(__file__).resolve().parent
# kinds of contenders, as --contenders names them
KINDS = ("ours", "hand", "vmap", "stock", "flower", "pfl", "byzfl")
TITLES = {"flower": "Flower", "pfl": "pfl-research", "byzfl": "ByzFL"}
ATTACKED_AIM = "at most 1.3 times the clean round"
# how far apart two that do the same work may end: accuracy, and the length of the models' way
CLOSE_ACCURACY, CLOSE_WAY = 0.05, 0.1


@dataclass
class Contender:
    """Somebody who does a work, and what was measured."""

    work: str
    name: str
    command: Sequence[str | Path]
    aim: str = ""
    problem: str = ""
    same_work: bool = True  # False: an attacked round, which is not compared
    source: Path | None = None  # another commit's, for the processes' PYTHONPATH
    seconds: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)  # of each turn's last round
    moved: list[float] = field(default_factory=list)  # by each turn's rounds together
    stages: dict[str, list[float]] = field(default_factory=dict)
    # cores that other work kept busy beside each turn
    others: list[float] = field(default_factory=list)


def torchrun(python: str | Path, processes: int) -> list[str | Path]:
    """The start of a command on several processes."""
    count = str(processes)
    return [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]


def our_contenders(
    name: str,
    options: argparse.Namespace,
    tree: Path,
    who: str,
) -> Iterator[Contender]:
    """Backstop from a tree of its files."""
    source = None if tree == HERE.parent else tree / "src"
    script = tree / "benchmarks" / "ours.py"
    ours = [sys.executable, script]
    turns = ["--rounds", str(options.rounds)]
    count = str(options.actors)
    ways = [("on one thread", [])]
    if options.actors > 1:
        ways.append((f"with {count} client actors", ["--actors", count]))
        if "--threads" in script.read_text():  # an old commit knows no threads
            ways.append((f"on {count} threads", ["--threads", count]))
    if name == "image":
        ways.reverse()
    for way, spread in ways:
        yield Contender(name, f"{who} {way}", [*ours, name, *turns, *spread], source=source)
    if name == "image":
        way, spread = ways[0]
        yield Contender(
            name,
            f"{who} {way}, attacked and defended",
            [*ours, "attacked", *turns, *spread],
            ATTACKED_AIM,
            same_work=False,
            source=source,
        )


def by_hand(name: str, folder: Path, processes: int) -> Iterator[tuple[str, Contender]]:
    """PyTorch without a project around it, each with its kind."""
    hand = [sys.executable, HERE / "handwritten.py", folder]
    stock = [sys.executable, HERE / "stock.py", folder]
    on = ["--processes", str(processes)]
    yield "hand", Contender(name, "by hand, PyTorch's threads", hand)
    yield "hand", Contender(name, "by hand, one thread", [*hand, "--threads", "1"])
    if processes > 1:
        yield "hand", Contender(name, f"by hand, {processes} processes", [*hand, *on])
    if name == "table":  # of convolutions vmap makes grouped ones, which take minutes on a CPU
        vmapped = [sys.executable, HERE / "vmapped.py", folder]
        yield "vmap", Contender(name, "by hand, vmap", vmapped)
        yield "stock", Contender(name, "stock kernels alone, clients batched", stock)
    else:
        yield "stock", Contender(name, "stock kernels alone, one thread", stock)
        if processes > 1:
            many = f"stock kernels alone, {processes} processes"
            yield "stock", Contender(name, many, [*stock, *on])


def other_projects(
    name: str,
    folder: Path,
    kinds: Sequence[str],
    processes: int,
) -> Iterator[Contender]:
    """The peers, each in its environment; who cannot be installed is named with the reason."""
    for kind, known in TITLES.items():
        if kind not in kinds:
            continue
        found, why = peers.environment(kind)
        python = found or "python"
        title = f"{known} {peers.pinned(kind)}"
        script = HERE / f"{kind}_app.py"
        yield Contender(name, title, [python, script, folder], problem=why)
        if kind == "pfl" and processes > 1:
            several = [*torchrun(python, processes), script, folder]
            yield Contender(name, f"{title}, {processes} processes", several, problem=why)


def tree_of(commit: str, place: Path) -> Path:
    """The files of another commit, in a work tree of git's at the place."""
    git = ["git", "-C", HERE.parent]
    made = [*git, "worktree", "add", "--quiet", "--detach", place, commit]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"--before {commit}: {peers.last_line(done.stderr)}")
    return place


def drop_tree(place: Path) -> None:
    """Git forgets the work tree of tree_of."""
    git = ["git", "-C", HERE.parent]
    subprocess.run([*git, "worktree", "remove", "--force", place], check=False)


def everybody(
    folder: Path,
    options: argparse.Namespace,
    before: Path | None,
) -> list[Contender]:
    """Everybody who takes part; the others of a work are compared with its first one."""
    listed: list[Contender] = []
    for name in work.CLEAN:
        if name not in options.only:
            continue
        missing = work.problem(name)
        if not missing:
            work.write(name, options.rounds, folder / name)
        group: list[Contender] = []
        if "ours" in options.contenders:
            group += our_contenders(name, options, HERE.parent, "Backstop")
            if before:
                group += our_contenders(name, options, before, f"before ({options.before})")
        hand = by_hand(name, folder / name, options.actors)
        group += [item for kind, item in hand if kind in options.contenders]
        group += other_projects(name, folder / name, options.contenders, options.actors)
        for item in group:
            item.problem = item.problem or missing
        listed += group
    return listed


def surroundings(contender: Contender) -> dict[str, str]:
    """The environment of a contender's processes."""
    found = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    if contender.source:
        found["PYTHONPATH"] = str(contender.source)
    return found


def difference(contender: Contender, other: Contender) -> str:
    """What a contender did otherwise than another one of the same work; empty where it did the
    same.
    """
    if contender.samples != other.samples:
        return "trained on other samples"
    if abs(contender.accuracy[-1] - other.accuracy[-1]) > CLOSE_ACCURACY:
        return f"accuracy {contender.accuracy[-1]:.3f} against {other.accuracy[-1]:.3f}"
    if not (contender.moved and other.moved):  # an old commit does not tell
        return ""
    ratio = contender.moved[-1] / other.moved[-1]
    return f"moved the model {ratio:.2f} times as far" if abs(ratio - 1) > CLOSE_WAY else ""
