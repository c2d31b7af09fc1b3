"""``make bench``: Backstop beside a hand-written loop and beside Flower on the same federations,
its start and its memory.

All contenders take turns, several times over, each in a process of its own; the first round of each
is a warm-up and is not counted. Prints the table and writes it to benchmarks/results.md. What
cannot be measured here (a dataset or an environment that is missing) is named, not left out in
silence. CIFAR-10 is looked for in the data folder ($BACKSTOP_DATA).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import work

from backstop import __version__

HERE = Path(__file__).resolve().parent
FLOWER = HERE.parent / ".venv-flower"
# environment variable by which the processes of one measurement are known
MARK = "BACKSTOP_BENCHMARK"
PATIENCE = 900.0  # seconds a contender gets
# cores that other work may keep busy: daemons, and what a watch misses; more slows several threads
# out of proportion
QUIET = 0.3
# what the project holds itself to
AIMS = {"attacked": "at most 1.3 times the clean round", "start": "at most 8 s"}
HEAD = """# Benchmarks

Written by `make bench`.
Backstop {backstop}, PyTorch {torch}, Python {python}, {machine}.{quiet}

A round is local training of 20 of 100 clients (Dirichlet 0.5, one epoch, batches of 64, SGD 0.01
with momentum 0.9), aggregation and the whole test set. `image`: the tutorial CNN on CIFAR-10;
`table`: an MLP 30-128-256-2 on 8,844 rows. Attacked and defended: a fifth of the clients attack
with badnets, the server takes the trimmed mean, and the triggered test set is evaluated as well.
"""
BACKSTOP = [
    sys.executable,
    "-c",
    "import sys; from backstop.platform.cli import main; sys.exit(main())",
]


@dataclass
class Contender:
    """Somebody who does a work, and what was measured."""

    work: str
    name: str
    command: Sequence[str | Path]
    aim: str = ""
    seconds: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    # cores that other work kept busy beside each turn
    others: list[float] = field(default_factory=list)
    problem: str = ""


@dataclass
class Start:
    """A ``backstop run`` from the command to the first round's line, and the memory of all its
    processes.
    """

    name: str
    options: Sequence[str]
    aim: str = ""
    first: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)  # MiB
    others: list[float] = field(default_factory=list)  # as in Contender
    problem: str = ""


@dataclass
class Sweep:
    """The quickstart as a whole, and what a reused trial process waits before its next trial's
    first round.
    """

    cores: int
    wall: list[float] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    problem: str = ""


def last_line(text: str) -> str:
    """The last line that says something."""
    return next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message"
    )


def flower(renew: bool) -> tuple[Path | None, str]:
    """The Python of Flower's own environment, made where it is missing, or why there is none.
    PyTorch is the one in use here.
    """
    python, mark = FLOWER / "bin" / "python", FLOWER / f".ready-{torch.__version__}"
    if mark.exists() and not renew:
        return python, ""
    site = Path(torch.__file__).parents[1]
    steps: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", "--clear", FLOWER],
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "flwr[simulation]",
        ],
        [
            python,
            "-c",
            (
                "import site; open(site.getsitepackages()[0] + '/torch.pth', "
                f"'w').write({str(site)!r})"
            ),
        ],
        [python, "-c", "import flwr.simulation, ray, torch"],
    ]
    print(
        "making an environment for Flower (minutes, the first time) …", file=sys.stderr, flush=True
    )
    for step in steps:
        try:
            done = subprocess.run(
                step, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return (
                None,
                f"{FLOWER.name} could not be made: {step[1:4]} took more than {PATIENCE:.0f} s",
            )
        if done.returncode:
            return None, f"{FLOWER.name} could not be made: {last_line(done.stderr)}"
    (FLOWER / ".gitignore").write_text("*\n")
    mark.touch()
    return python, ""


def contenders(
    folder: Path, options: argparse.Namespace, python: Path | None, why: str
) -> list[Contender]:
    """Everybody who takes part; the others of a work are compared with its first one."""
    ours: list[str | Path] = [sys.executable, HERE / "ours.py"]
    hand: list[str | Path] = [sys.executable, HERE / "handwritten.py"]
    rounds, actors = options.rounds, options.actors
    spread, turns = ["--actors", str(actors)], ["--rounds", str(rounds)]
    listed = []
    for name in work.CLEAN:
        if name not in options.only:
            continue
        missing = work.problem(name)
        if not missing:
            work.write(name, rounds, folder / name)
        alone = Contender(name, "Backstop in one process", [*ours, name, *turns])
        many = Contender(name, f"Backstop, {actors} client actors", [*ours, name, *turns, *spread])
        listed += [many, alone] if name == "image" else [alone]
        if name == "image":
            busy = [*ours, "attacked", *turns, *spread]
            listed.append(
                Contender(
                    name,
                    f"Backstop, {actors} client actors, attacked and defended",
                    busy,
                    AIMS["attacked"],
                )
            )
        listed.append(Contender(name, "by hand, PyTorch's threads", [*hand, folder / name]))
        listed.append(
            Contender(name, "by hand, one thread", [*hand, folder / name, "--threads", "1"])
        )
        listed.append(
            Contender(
                name,
                "Flower",
                [python or "python", HERE / "flower_app.py", folder / name],
                problem=why,
            )
        )
        for item in listed:
            item.problem = item.problem or (missing if item.work == name else "")
    return listed


def busy() -> float:
    """Seconds that all cores together have worked since the start (Linux; elsewhere 0)."""
    with contextlib.suppress(OSError):
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        # all but idle and iowait
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Watch:
    """Looks after the processes that carry a mark in their environment: their memory, and what
    other work does beside them (Linux).
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark.encode()
        self.worked: dict[str, float] = {}  # process → seconds of a core
        self.peak = 0.0  # MiB; memory that several processes share is counted once (Pss)
        self.others = 0.0  # cores that other work kept busy

    def look(self, with_memory: bool) -> None:
        """Take a look now."""
        total = 0
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                if self.mark in (entry / "environ").read_bytes():
                    used = (entry / "stat").read_text().rpartition(")")[2].split()[11:13]
                    self.worked[entry.name] = sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
                    total += (
                        int((entry / "smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
                        if with_memory
                        else 0
                    )
        self.peak = max(self.peak, total / 1024)

    def clear(self) -> None:
        """End what is left of the marked processes: a simulation that was cut short leaves its Ray
        behind.
        """
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)


@contextlib.contextmanager
def watched(mark: str, *, every: float, with_memory: bool) -> Iterator[Watch]:
    """A watch over the marked processes while the block runs."""
    watch, over, began, before = Watch(mark), threading.Event(), time.perf_counter(), busy()

    def keep_looking() -> None:
        while not over.wait(every):
            watch.look(with_memory)

    watcher = threading.Thread(target=keep_looking)
    watcher.start()
    try:
        yield watch
    finally:
        over.set()
        watcher.join()
        watch.clear()
        mine = sum(watch.worked.values())
        watch.others = max(0.0, busy() - before - mine) / (time.perf_counter() - began)


def measure(contender: Contender, folder: Path) -> None:
    """One turn."""
    mark = uuid.uuid4().hex
    environment = os.environ | {
        MARK: mark,
        "FLWR_TELEMETRY_ENABLED": "0",
        "PYTHONWARNINGS": "ignore",
    }
    try:
        with watched(mark, every=1.0, with_memory=False) as watch:
            done = subprocess.run(
                contender.command,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
                cwd=folder,
                env=environment,
            )
        report = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        contender.problem = f"failed: {last_line(str(error))}"
        return
    if report is None:
        contender.problem = f"failed: {last_line(done.stderr)}"
        return
    contender.seconds += report["seconds"][1:]
    contender.samples += report["samples"][1:]
    contender.others.append(watch.others)


def begin(start: Start, folder: Path) -> None:
    """One ``backstop run``, in a store of its own."""
    mark = uuid.uuid4().hex
    environment = os.environ | {MARK: mark, "PYTHONWARNINGS": "ignore"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [
        *BACKSTOP,
        "run",
        *start.options,
        "--rounds",
        "2",
        "--device",
        "cpu",
        "--store",
        str(folder / mark),
    ]
    began, first, said = time.perf_counter(), None, ""
    with watched(mark, every=0.2, with_memory=True) as watch:
        running = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )
        assert running.stderr is not None
        for line in running.stderr:
            said += line
            if first is None and line.startswith("round "):
                first = time.perf_counter() - began
        code = running.wait()
    shutil.rmtree(folder / mark, ignore_errors=True)
    if code or first is None:
        start.problem = f"failed: {last_line(said)}"
        return
    start.first.append(first)
    start.peak.append(watch.peak)
    start.others.append(watch.others)


def sweep(item: Sweep, folder: Path) -> None:
    """One quickstart in a store of its own."""
    mark = uuid.uuid4().hex
    environment = os.environ | {MARK: mark, "PYTHONWARNINGS": "ignore"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, HERE / "sweeping.py", "quickstart", str(folder / mark)]
    began = time.perf_counter()
    with watched(mark, every=1.0, with_memory=False) as watch:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=folder,
            env=environment,
        )
    wall = time.perf_counter() - began
    shutil.rmtree(folder / mark, ignore_errors=True)
    if done.returncode:
        item.problem = f"failed: {last_line(done.stderr)}"
        return
    report = json.loads(done.stdout.splitlines()[-1])
    item.wall.append(wall)
    item.ratio.append(wall / (sum(report["seconds"]) / item.cores))
    # the first trial of each process waits for the process
    item.waited += report["waited"][item.cores :]
    item.others.append(watch.others)


def starts(actors: int) -> list[Start]:
    """The runs whose start and memory are measured."""
    image = [
        "--dataset",
        "cifar10",
        "--model",
        "cnn",
        "--malicious",
        "0",
        "--optimizer",
        "sgd(lr=0.01, momentum=0.9)",
    ]
    missing = work.problem("image")
    return [
        Start("backstop run, digits and the other defaults", []),
        Start("backstop run, CNN on CIFAR-10", image, AIMS["start"], problem=missing),
        Start(
            f"backstop run, CNN on CIFAR-10, {actors} client actors",
            [*image, "--client-actors", str(actors)],
            problem=missing,
        ),
    ]


def spread_of(values: Sequence[float], digits: int) -> str:
    """Median, smallest and largest as three cells of a table."""
    return " | ".join(
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )


def line(*cells: object) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def rule(left: int, right: int) -> str:
    """The line below a table's head: some columns to the left, numbers to the right, one more."""
    return line(*["---"] * left, *["---:"] * right, "---")


def not_measured(left: Sequence[str], dashes: int, problem: str) -> str:
    """The line of what could not be measured, with the reason."""
    return line(*left, *["–"] * dashes, f"not measured: {problem.replace('|', '/')}")


def rounds_table(listed: Sequence[Contender]) -> Iterator[str]:
    """Seconds a round."""
    seconds = ("median s", "min s", "max s", "times ours")
    yield line(
        "work", "contender", "rounds", *seconds, "samples a round", "other work, cores", "aim"
    )
    yield rule(2, 7)
    for item in listed:
        if item.problem:
            yield not_measured([item.work, item.name], 7, item.problem)
            continue
        base = next(other for other in listed if other.work == item.work)
        ratio = "–"
        if base.seconds:
            ratio = f"{statistics.median(item.seconds) / statistics.median(base.seconds):.2f}"
        yield line(
            item.work,
            item.name,
            len(item.seconds),
            spread_of(item.seconds, 3),
            ratio,
            f"{statistics.mean(item.samples):.0f}",
            f"{max(item.others):.1f}",
            item.aim,
        )


def starts_table(listed: Sequence[Start]) -> Iterator[str]:
    """Seconds to the first result, and memory."""
    first = ("first round, median s", "min s", "max s")
    peak = ("peak memory, median MiB", "min", "max")
    yield line("command", "runs", *first, *peak, "other work, cores", "aim")
    yield rule(1, 8)
    for item in listed:
        if item.problem:
            yield not_measured([item.name], 8, item.problem)
            continue
        yield line(
            item.name,
            len(item.first),
            spread_of(item.first, 1),
            spread_of(item.peak, 0),
            f"{max(item.others):.1f}",
            item.aim,
        )


def sweep_table(item: Sweep) -> Iterator[str]:
    """The sweep's figures, one a line."""
    yield line("quickstart", "sweeps", "median", "min", "max", "other work, cores", "aim")
    yield rule(1, 5)
    if item.problem or not item.wall:
        yield not_measured(["–"], 5, item.problem)
        return
    waited = "a further trial on a reused process: s before its first round"
    for name, values, digits, aim in (
        ("wall time, s", item.wall, 0, "at most 180 s"),
        ("wall time over (trials' own time / cores)", item.ratio, 2, "at most 1.15"),
        (waited, item.waited, 2, "under 0.5 s"),
    ):
        spread, others = spread_of(values, digits), f"{max(item.others):.1f}"
        yield line(name, len(item.wall), spread, others, aim)


def machine() -> str:
    """What this was measured on."""
    with contextlib.suppress(OSError, IndexError):
        model = Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].splitlines()[0]
        return f"{os.cpu_count()} × {model}"
    return f"{os.cpu_count()} × {platform.machine()}"


def page(listed: Sequence[Contender], begun: Sequence[Start], swept: Sweep | None) -> str:
    """benchmarks/results.md."""
    measured = [*listed, *begun, *([swept] if swept else [])]
    most = max((value for item in measured for value in item.others), default=0.0)
    quiet = ""
    if most >= QUIET:
        quiet = (
            f" **Other work kept up to {most:.1f} cores busy:"
            " these figures are not to be relied on.**"
        )
    lines = [
        HEAD.format(
            backstop=__version__,
            torch=torch.__version__,
            python=platform.python_version(),
            machine=machine(),
            quiet=quiet,
        ),
        *(rounds_table(listed) if listed else ()),
        "",
        *(starts_table(begun) if begun else ()),
        "",
        *(sweep_table(swept) if swept else ()),
        "",
        "Memory is that of all processes, Ray's included; shared memory is counted once.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and report; 1 where something that is there did not run."""
    parser = argparse.ArgumentParser(description="Measure Backstop beside others.")
    parser.add_argument(
        "--repetitions", type=int, default=3, help="turns of each contender (default: 3)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="rounds of a turn, the first of which is not counted (default: 5)",
    )
    parser.add_argument("--actors", type=int, default=2, help="client actors (default: 2)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*work.CLEAN, "start", "sweep"],
        default=[*work.CLEAN, "start", "sweep"],
        help="measure only this",
    )
    parser.add_argument("--without-flower", action="store_true", help="leave Flower out")
    parser.add_argument(
        "--renew-flower", action="store_true", help="make Flower's environment anew"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE / "results.md", help="(default: benchmarks/results.md)"
    )
    options = parser.parse_args()
    # so that what was started is ended as well
    signal.signal(signal.SIGTERM, lambda received, _: sys.exit(128 + received))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with_flower = not options.without_flower and bool({*work.CLEAN} & {*options.only})
        python, why = (
            flower(options.renew_flower) if with_flower else (None, "left out by --without-flower")
        )
        listed = contenders(folder, options, python, why)
        begun = starts(options.actors) if "start" in options.only else []
        swept = Sweep(len(os.sched_getaffinity(0))) if "sweep" in options.only else None
        for turn in range(options.repetitions):
            for item in listed:
                if not item.problem:
                    print(f"turn {turn + 1}: {item.work}, {item.name}", file=sys.stderr, flush=True)
                    measure(item, folder)
            for run in begun:
                if not run.problem:
                    print(f"turn {turn + 1}: {run.name}", file=sys.stderr, flush=True)
                    begin(run, folder)
            # minutes long, and its trials are repetitions already
            if swept and not swept.problem and turn == 0:
                print(f"turn {turn + 1}: the quickstart sweep", file=sys.stderr, flush=True)
                sweep(swept, folder)
            options.out.write_text(page(listed, begun, swept))  # what an interruption leaves
    print(options.out.read_text())
    problems = [item.problem for item in [*listed, *begun, *([swept] if swept else [])]]
    return int(any(problem.startswith("failed") for problem in problems))


if __name__ == "__main__":
    sys.exit(main())
