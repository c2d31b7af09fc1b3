"""``make bench``: Backstop beside PyTorch by hand, PyTorch's kernels alone, Flower, pfl-research
and ByzFL on the same federations, its start and its memory.

All contenders take turns, several times over, each in a process of its own; the first round of each
is a warm-up and is not counted. Prints the tables and writes them to benchmarks/results.md, and all
figures to benchmarks/results.json. What cannot be measured here (a dataset or an environment that
is missing) is named, not left out in silence; so is who did not do the same work.
``--before COMMIT`` measures another commit of Backstop in the same run. CIFAR-10 is looked for in
the data folder ($BACKSTOP_DATA).
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
from typing import Any

import peers
import torch
import work
from contenders import (
    CLOSE_ACCURACY,
    CLOSE_WAY,
    HERE,
    KINDS,
    TITLES,
    Contender,
    difference,
    drop_tree,
    everybody,
    surroundings,
    tree_of,
)
from peers import last_line

from backstop import __version__

# environment variable by which the processes of one measurement are known
MARK = "BACKSTOP_BENCHMARK"
PATIENCE = 900.0  # seconds a contender gets
# cores that other work may keep busy: daemons, and what a watch misses; more slows several threads
# out of proportion
QUIET = 0.3
# what the project holds itself to
START_AIM = "at most 8 s"
RUN_AIM = "whole, at most 3.5 s"
DIGITS = "backstop run, digits and the other defaults"
HEAD = """# Benchmarks

Written by `make bench`.
Backstop {backstop}, PyTorch {torch}, {peers}, Python {python}.
{machine}, load {load} when it began.{quiet}

A round is local training of 20 of 100 clients (Dirichlet 0.5, one epoch, batches of 64, SGD 0.01
with momentum 0.9), aggregation and the whole test set. `image`: the tutorial CNN on CIFAR-10;
`table`: an MLP 30-128-256-2 on 8,844 rows. Attacked and defended: a fifth of the clients attack
with badnets, the server takes the trimmed mean, and the triggered test set is evaluated as well.
"Same work": as many samples, an accuracy within {accuracy} and a model that moved as far within
{way} as the work's first contender's.
"""
BACKSTOP = [
    sys.executable,
    "-c",
    "import sys; from backstop.platform.cli import main; sys.exit(main())",
]


@dataclass
class Start:
    """A ``backstop run`` from the command to the first round's line and to its end, and the memory
    of all its processes.
    """

    name: str
    options: Sequence[str]
    aim: str = ""
    source: Path | None = None  # as in Contender
    first: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)  # MiB
    others: list[float] = field(default_factory=list)  # as in Contender
    problem: str = ""


@dataclass
class Sweep:
    """The quickstart as a whole, when its first trial begins, and what a reused trial process waits
    before its next trial's first round.
    """

    name: str
    cores: int
    tree: Path  # of the commit
    wall: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # an old commit does not tell
    ratio: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    problem: str = ""


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
    environment = surroundings(contender) | {MARK: mark}
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
    contender.accuracy.append(report["accuracy"][-1])
    if "moved" in report:
        contender.moved.append(report["moved"])
    for stage, seconds in report.get("stages", {}).items():
        contender.stages.setdefault(stage, []).extend(seconds[1:])
    contender.others.append(watch.others)


def begin(start: Start, folder: Path) -> None:
    """One ``backstop run``, in a store of its own."""
    mark = uuid.uuid4().hex
    environment = _own_store(mark, start.source)
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
        wall = time.perf_counter() - began
    shutil.rmtree(folder / mark, ignore_errors=True)
    if code or first is None:
        start.problem = f"failed: {last_line(said)}"
        return
    start.first.append(first)
    start.wall.append(wall)
    start.peak.append(watch.peak)
    start.others.append(watch.others)


def sweep(item: Sweep, folder: Path) -> None:
    """One quickstart in a store of its own."""
    mark = uuid.uuid4().hex
    source = None if item.tree == HERE.parent else item.tree / "src"
    environment = _own_store(mark, source)
    script = item.tree / "benchmarks" / "sweeping.py"
    command = [sys.executable, script, "quickstart", str(folder / mark)]
    started, began = time.time(), time.perf_counter()
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
    if "began" in report:
        item.first.append(report["began"] - started)
    item.ratio.append(wall / (sum(report["seconds"]) / item.cores))
    # the first trial of each process waits for the process
    item.waited += report["waited"][item.cores :]
    item.others.append(watch.others)


def _own_store(mark: str, source: Path | None) -> dict[str, str]:
    """The environment of a command that is given a store."""
    environment = os.environ | {MARK: mark, "PYTHONWARNINGS": "ignore"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    if source:
        environment["PYTHONPATH"] = str(source)
    return environment


def starts(actors: int, before: Path | None, commit: str) -> list[Start]:
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
    old = []
    if before:
        old = [Start(f"{DIGITS}, before ({commit})", [], source=before / "src")]
    return [
        Start(DIGITS, [], RUN_AIM),
        *old,
        Start("backstop run, CNN on CIFAR-10", image, START_AIM, problem=missing),
        Start(
            f"backstop run, CNN on CIFAR-10, {actors} client actors",
            [*image, "--client-actors", str(actors)],
            problem=missing,
        ),
    ]


def sweeps(before: Path | None, commit: str) -> list[Sweep]:
    """The quickstart, of another commit too where one is given."""
    cores = len(os.sched_getaffinity(0))
    now = [Sweep("quickstart", cores, HERE.parent)]
    return [*now, Sweep(f"quickstart, before ({commit})", cores, before)] if before else now


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


def first_of(listed: Sequence[Contender], name: str) -> Contender | None:
    """The contender that the others of a work are compared with: the first that was measured."""
    return next((item for item in listed if item.work == name and item.seconds), None)


def sameness(item: Contender, base: Contender | None) -> str:
    """Whether a contender did the same work as the first one."""
    if base is None or not item.same_work:
        return "–"
    differs = difference(item, base)
    return f"no: {differs}" if differs else "yes"


def rounds_table(listed: Sequence[Contender]) -> Iterator[str]:
    """Seconds a round."""
    seconds = ("median s", "min s", "max s", "times the first")
    beside = ("samples a round", "accuracy", "other work, cores", "same work", "aim")
    yield line("work", "contender", "rounds", *seconds, *beside)
    yield rule(2, 9)
    for item in listed:
        if item.problem or not item.seconds:
            yield not_measured([item.work, item.name], 9, item.problem or "no turn yet")
            continue
        base = first_of(listed, item.work)
        assert base is not None  # at least this one
        ratio = statistics.median(item.seconds) / statistics.median(base.seconds)
        yield line(
            item.work,
            item.name,
            len(item.seconds),
            spread_of(item.seconds, 4),
            f"{ratio:.2f}",
            f"{statistics.mean(item.samples):.0f}",
            f"{statistics.median(item.accuracy):.3f}",
            f"{max(item.others):.1f}",
            sameness(item, base),
            item.aim,
        )


def stages_table(listed: Sequence[Contender]) -> Iterator[str]:
    """Where a round's time goes, in hundredths of all counted rounds."""
    measured = [item for item in listed if item.stages]
    if not measured:
        return
    names = list(dict.fromkeys(name for item in measured for name in item.stages))
    yield line("work", "contender", *[f"{name}, %" for name in names], "the rest, %", "")
    yield rule(2, len(names) + 1)
    for item in measured:
        whole = sum(item.seconds)
        parts = [100 * sum(item.stages.get(name, [])) / whole for name in names]
        cells = [f"{part:.1f}" for part in [*parts, 100 - sum(parts)]]
        yield line(item.work, item.name, *cells, "")


def before_table(listed: Sequence[Contender], before: str) -> Iterator[str]:
    """Another commit and this one side by side."""
    if not before:
        return
    yield line("work", "contender", f"{before}, median s", "now, median s", "now / before", "")
    yield rule(2, 3)
    for now in listed:
        name = now.name.replace("Backstop", f"before ({before})", 1)
        then = next((item for item in listed if (item.work, item.name) == (now.work, name)), now)
        if then is now or not (then.seconds and now.seconds):
            continue
        old, new = statistics.median(then.seconds), statistics.median(now.seconds)
        yield line(now.work, now.name, f"{old:.4f}", f"{new:.4f}", f"{new / old:.2f}", "")


def starts_table(listed: Sequence[Start]) -> Iterator[str]:
    """Seconds to the first result and to the end, and memory."""
    first = ("first round, median s", "min s", "max s")
    whole = ("whole, median s", "min s", "max s")
    peak = ("peak memory, median MiB", "min", "max")
    yield line("command", "runs", *first, *whole, *peak, "other work, cores", "aim")
    yield rule(1, 11)
    for item in listed:
        if item.problem:
            yield not_measured([item.name], 11, item.problem)
            continue
        yield line(
            item.name,
            len(item.first),
            spread_of(item.first, 1),
            spread_of(item.wall, 1),
            spread_of(item.peak, 0),
            f"{max(item.others):.1f}",
            item.aim,
        )


def sweep_table(item: Sweep) -> Iterator[str]:
    """The sweep's figures, one a line."""
    yield line(item.name, "sweeps", "median", "min", "max", "other work, cores", "aim")
    yield rule(1, 5)
    if item.problem or not item.wall:
        yield not_measured(["–"], 5, item.problem)
        return
    waited = "a further trial on a reused process: s before its first round"
    for name, values, digits, aim in (
        ("wall time, s", item.wall, 1, "at most 38 s"),
        ("until the first trial, s", item.first, 1, "at most 6 s"),
        ("wall time over (trials' own time / cores)", item.ratio, 2, "at most 1.25"),
        (waited, item.waited, 2, "under 0.5 s"),
    ):
        if not values:
            continue
        spread, others = spread_of(values, digits), f"{max(item.others):.1f}"
        yield line(name, len(item.wall), spread, others, aim)


def machine() -> str:
    """What this was measured on."""
    with contextlib.suppress(OSError, IndexError):
        model = Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].splitlines()[0]
        return f"{os.cpu_count()} × {model}"
    return f"{os.cpu_count()} × {platform.machine()}"


def versions() -> str:
    """The peers' versions."""
    return ", ".join(f"{title} {peers.pinned(name)}" for name, title in TITLES.items())


def page(
    listed: Sequence[Contender],
    begun: Sequence[Start],
    swept: Sequence[Sweep],
    before: str,
    load: float,
) -> str:
    """benchmarks/results.md."""
    measured = [*listed, *begun, *swept]
    most = max((value for item in measured for value in item.others), default=0.0)
    quiet = ""
    if most >= QUIET:
        quiet = (
            f" **Other work kept up to {most:.1f} cores busy:"
            " these figures are not to be relied on.**"
        )
    head = HEAD.format(
        backstop=__version__,
        torch=torch.__version__,
        python=platform.python_version(),
        machine=machine(),
        quiet=quiet,
        peers=versions(),
        load=f"{load:.1f}",
        accuracy=CLOSE_ACCURACY,
        way=f"{100 * CLOSE_WAY:.0f} %",
    )
    tables = [
        rounds_table(listed) if listed else (),
        before_table(listed, before),
        stages_table(listed),
        starts_table(begun) if begun else (),
        *map(sweep_table, swept),
    ]
    texts = ["\n".join(table) for table in tables]
    note = "Memory is that of all processes, Ray's included; shared memory is counted once."
    return "\n\n".join([head.rstrip(), *filter(None, texts), note]) + "\n"


def figures(
    listed: Sequence[Contender],
    begun: Sequence[Start],
    swept: Sequence[Sweep],
    load: float,
) -> dict[str, Any]:
    """All that was measured, for results.json."""
    made_with = {"backstop": __version__, "torch": torch.__version__}
    made_with |= {name: peers.pinned(name) for name in peers.NAMES}
    kept = ("command", "source")  # paths of this machine
    return {
        "machine": machine(),
        "python": platform.python_version(),
        "load": load,
        "versions": made_with,
        "rounds": [
            {name: value for name, value in vars(item).items() if name not in kept}
            | {"did_the_same": sameness(item, first_of(listed, item.work))}
            for item in listed
        ],
        "starts": [
            {name: value for name, value in vars(item).items() if name != "source"}
            for item in begun
        ],
        "sweeps": [
            {name: value for name, value in vars(item).items() if name != "tree"} for item in swept
        ],
    }


def choices() -> argparse.ArgumentParser:
    """The command line."""
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
    parser.add_argument(
        "--actors",
        type=int,
        default=2,
        help="client actors, threads and processes; under 2: none (default: 2)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*work.CLEAN, "start", "sweep"],
        default=[*work.CLEAN, "start", "sweep"],
        help="measure only this",
    )
    parser.add_argument(
        "--contenders", nargs="+", choices=KINDS, default=KINDS, help="only these take part"
    )
    parser.add_argument(
        "--before", default="", metavar="COMMIT", help="measure another commit of Backstop too"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "results.md",
        help="the figures go beside it, as .json (default: benchmarks/results.md)",
    )
    return parser


def measure_all(
    folder: Path, options: argparse.Namespace, before: Path | None, load: float
) -> list[str]:
    """Everything, in turns; the pages are written after each. The problems that there were."""
    listed = everybody(folder, options, before)
    begun = []
    if "start" in options.only:
        begun = starts(options.actors, before, options.before)
    swept = sweeps(before, options.before) if "sweep" in options.only else []
    for turn in range(options.repetitions):
        for item in listed:
            if not item.problem:
                print(f"turn {turn + 1}: {item.work}, {item.name}", file=sys.stderr, flush=True)
                measure(item, folder)
        for run in begun:
            if not run.problem:
                print(f"turn {turn + 1}: {run.name}", file=sys.stderr, flush=True)
                begin(run, folder)
        for quickstart in swept:
            if not quickstart.problem:
                print(f"turn {turn + 1}: {quickstart.name}", file=sys.stderr, flush=True)
                sweep(quickstart, folder)
        # what an interruption leaves
        options.out.write_text(page(listed, begun, swept, options.before, load))
        found = figures(listed, begun, swept, load)
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    unlike = [
        f"failed: {item.name} did other work"
        for item in listed
        if item.seconds and sameness(item, first_of(listed, item.work)).startswith("no")
    ]
    return [item.problem for item in [*listed, *begun, *swept]] + unlike


def main() -> int:
    """Measure and report; 1 where something that is there did not run or did other work."""
    options = choices().parse_args()
    load = os.getloadavg()[0]
    # so that what was started is ended as well
    signal.signal(signal.SIGTERM, lambda received, _: sys.exit(128 + received))
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, before = Path(name), None
        if options.before:
            try:
                before = tree_of(options.before, folder / "before")
            except ValueError as error:
                print(error, file=sys.stderr)
                return 2
            stack.callback(drop_tree, before)
        problems = measure_all(folder, options, before, load)
    print(options.out.read_text())
    return int(any(problem.startswith("failed") for problem in problems))


if __name__ == "__main__":
    sys.exit(main())
