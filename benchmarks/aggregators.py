"""Aggregation rules beside ByzFL's on the same matrices with the same threads, and as multiples of
one read of the matrix.

    python benchmarks/aggregators.py [--threads 1] [--quick]

For n rows of d coordinates: the time to read the matrix once (its sum over the rows), the time of
one Gram product, and for each rule ours and ByzFL's in turns (median, min, max). Writes
benchmarks/aggregators.md and aggregators.svg. A rule whose first run takes longer than PATIENCE is
measured once, some are left out at the largest size; what would need more memory than there is is
named in the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from backstop import __version__
from backstop.platform import plugins
from backstop.platform.contract import Defense, Updates
from backstop.platform.rounds import costs
from backstop.platform.seeds import generator

with warnings.catch_warnings():  # its own imports warn
    warnings.simplefilter("ignore")
    try:
        import byzfl
    except ImportError:
        byzfl = None

HERE = Path(__file__).resolve().parent
NUMBERS, SIZES = (20, 50, 100), (62_000, 1_000_000, 11_200_000)  # 11.2 million: ResNet-18
PATIENCE = 2.0  # seconds that a first run may take to be repeated
REPEATS = 5
# matrices that ByzFL's sorts hold at once: values, differences, sorted values, 64-bit indices
COPIES = 6
SHARE = 5  # one in SHARE rows is assumed to be malicious
HEAD = """# Aggregation rules

Written by `python benchmarks/aggregators.py --threads {threads}`.
Backstop {backstop}, PyTorch {torch}, ByzFL {byzfl}, {machine}, {threads} thread{plural}.

Milliseconds, median (min–max). *read* is one sum over the rows, *Gram* one product of the matrix
with its transpose, both by PyTorch on the same matrix in the same run. One row in five is far from
the others, and as many attackers are assumed. Memory is the growth of the process beside the
matrix.
"""


class Rule(NamedTuple):
    """One of ours, the equal one of ByzFL for f rows, and what it is measured against: at most
    ``aim`` times ``unit``.
    """

    text: str
    twin: Callable[[int, int], Any] | None = None
    unit: str = "read"
    # whether ByzFL's writes into its argument: it is then given a copy, whose time counts, as ours
    # keeps the argument
    changes: bool = False
    large: bool = True  # whether it is measured at the largest size too
    aim: tuple[float, float] | None = None  # for n = 20 and n = 50


ORDERED = (6.0, 12.0)
RULES = (
    Rule("invariant", None, aim=ORDERED),
    Rule("trimmed_mean(trim_fraction=0.2)", lambda n, f: byzfl.TrMean(f=f), aim=ORDERED),
    Rule("median", lambda n, f: byzfl.Median(), aim=ORDERED),
    Rule("meamed", lambda n, f: byzfl.Meamed(f=f), large=False),
    Rule("krum", lambda n, f: byzfl.Krum(f=f), "gram", aim=(2.0, 2.0)),
    Rule("multi_krum", lambda n, f: byzfl.MultiKrum(f=f), "gram", aim=(2.0, 2.0)),
    Rule("rfa", lambda n, f: byzfl.GeometricMedian(), "gram", aim=(2.0, 2.0)),
    Rule("nnm", lambda n, f: byzfl.NNM(f=f), large=False),
    Rule("centered_clipping", lambda n, f: byzfl.CenteredClipping(), large=False),
    Rule("norm_clip", lambda n, f: byzfl.Clipping(c=1.0), changes=True),
    Rule("arc", lambda n, f: byzfl.ARC(f=f), changes=True, large=False),
    Rule("caf", lambda n, f: byzfl.CAF(f=f), large=False),
    Rule("dnc", large=False),
    Rule("bulyan", large=False),
    Rule("flame", large=False),
    Rule("rlr", large=False),
)
TAKES_F = {"krum", "multi_krum", "meamed", "nnm", "arc", "caf", "dnc"}


class Row(NamedTuple):
    """What was measured of one rule on one matrix: seconds, and the most memory beside the matrix
    in MiB.
    """

    rule: Rule
    n: int
    d: int
    ours: list[float]
    theirs: list[float]
    read: float
    gram: float
    memory: float
    note: str


def once(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timed(work: Callable[[], Any]) -> list[float]:
    """Seconds of several calls after one that warms up, or of that one where it takes long."""
    first = once(work)
    return [first] if first > PATIENCE else [once(work) for _ in range(REPEATS)]


def call(rule: Rule, rows: torch.Tensor) -> Callable[[], Any]:
    """One application of our rule to a fresh view of the matrix: nothing is remembered from the
    call before.
    """
    from dataclasses import replace

    from backstop.platform.examples import server_view
    from backstop.platform.specs.part import parse_part

    part = parse_part(rule.text)
    n, d = rows.shape
    params = dict(part.params) | ({"f": n // SHARE} if part.name in TAKES_F else {})
    defense: Defense = plugins.build("defenses", part.name, params)
    view = replace(server_view(torch.zeros(d)), layout=())
    weight, client = torch.ones(n), torch.arange(n)

    def work() -> object:
        here = replace(view, generator=generator(0, "bench"))
        return defense.apply(Updates(rows[:], weight, client), defense.init(here), here)

    return work


def measure(rows: torch.Tensor, rule: Rule, read: float, gram: float, room: float) -> Row:
    """One rule on one matrix, ours and ByzFL's."""
    n, d = rows.shape
    ours, spent, note = call(rule, rows), dict[str, float](), ""
    with costs.measured("rule", rows.device, spent, memory=True):
        ours()
    mine, theirs = timed(ours), list[float]()
    if rule.twin is None:
        note = "not in ByzFL"
    elif byzfl is None:
        note = "ByzFL is not installed"
    elif COPIES * rows.nbytes > room:
        note = "ByzFL's would not fit the memory here"
    else:
        other = rule.twin(n, n // SHARE)
        try:
            theirs = timed(lambda: other(rows.clone() if rule.changes else rows))
        except Exception as error:  # noqa: BLE001 -- whatever another library raises is the result
            note = f"ByzFL: {type(error).__name__}"
    return Row(
        rule, n, d, mine, theirs, read, gram, spent.get("memory/rule_mib", float("nan")), note
    )


def matrix(n: int, d: int) -> torch.Tensor:
    """Normal rows around a common direction, a fifth of them far away."""
    rows = torch.randn(n, d, generator=generator(0, "bench", n, d))
    rows += torch.randn(d, generator=generator(0, "bench", "direction", d)) / 2
    rows[: n // SHARE] *= -3
    return rows


def spread(seconds: list[float]) -> str:
    """Median and range in milliseconds."""
    if not seconds:
        return "–"
    return (
        f"{1e3 * statistics.median(seconds):.1f} "
        f"({1e3 * min(seconds):.1f}–{1e3 * max(seconds):.1f})"
    )


def table(measured: list[Row], threads: int, others: str) -> str:
    """The Markdown page."""
    lines = [
        HEAD.format(
            threads=threads,
            backstop=__version__,
            torch=torch.__version__,
            byzfl=others,
            machine=f"{os.cpu_count()} × {processor()}",
            plural="s" if threads > 1 else "",
        ),
        (
            "| rule | n | d | ours, ms | ByzFL, ms | ByzFL / ours | × read | × Gram | aim "
            "| extra memory, MiB (matrix) | |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | --- |",
        *(line(row) for row in measured),
    ]
    return "\n".join([*lines, "", "![Growth with n and d](aggregators.svg)", ""])


def line(row: Row) -> str:
    """One line of the table."""
    mine = statistics.median(row.ours)
    ratio = f"{statistics.median(row.theirs) / mine:.1f}" if row.theirs else ""
    matrix = row.n * row.d * 4 / costs.MIB
    cells = [
        row.rule.text,
        str(row.n),
        f"{row.d:,}",
        spread(row.ours),
        spread(row.theirs),
        ratio,
        f"{mine / row.read:.1f}",
        f"{mine / row.gram:.2f}",
        aim_of(row),
        f"{row.memory:.0f} ({matrix:.0f})",
        row.note,
    ]
    return f"| {' | '.join(cells)} |"


def aim_of(row: Row) -> str:
    """What the rule is held to with so many rows; empty where to nothing."""
    aims = dict(zip(NUMBERS, row.rule.aim or (), strict=False))
    if not aims.get(row.n):
        return ""
    return f"≤ {aims[row.n]:g} × {'Gram' if row.rule.unit == 'gram' else 'read'}"


def processor() -> str:
    """The processor's name."""
    try:
        return (
            Path("/proc/cpuinfo")
            .read_text(encoding="utf-8")
            .partition("model name\t: ")[2]
            .partition("\n")[0]
        )
    except OSError:
        return platform.processor()


def draw(measured: list[Row], file: Path) -> None:
    """Seconds against d for every n, ours as lines, ByzFL's dashed, with the read of the matrix."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    shown = [rule for rule in RULES if rule.aim or rule.text == "meamed"]
    figure, axes = plt.subplots(
        1, len(NUMBERS), figsize=(13, 4.6), sharey=True, layout="constrained"
    )
    for axis, n in zip(axes, NUMBERS, strict=True):
        for index, rule in enumerate(shown):
            rows = [row for row in measured if row.rule is rule and row.n == n]
            axis.plot(
                [row.d for row in rows],
                [statistics.median(row.ours) for row in rows],
                "o-",
                color=f"C{index}",
                label=rule.text,
            )
            both = [row for row in rows if row.theirs]
            axis.plot(
                [row.d for row in both],
                [statistics.median(row.theirs) for row in both],
                "x--",
                color=f"C{index}",
                alpha=0.6,
            )
        rows = [row for row in measured if row.rule is shown[0] and row.n == n]
        axis.plot(
            [row.d for row in rows],
            [row.read for row in rows],
            ":",
            color="black",
            label="one read",
        )
        axis.plot(
            [row.d for row in rows],
            [row.gram for row in rows],
            "-.",
            color="gray",
            label="one Gram product",
        )
        axis.set(title=f"n = {n}", xlabel="coordinates d", xscale="log", yscale="log")
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[-1].legend(fontsize=8, title="ours solid, ByzFL dashed", title_fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Measure everything and write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="only the two smaller sizes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for rule in RULES:
        call(rule, matrix(7, 5000))()  # compiles
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    measured: list[Row] = []
    for d in SIZES[:2] if options.quick else SIZES:
        for n in NUMBERS:
            rows = matrix(n, d)
            left = room - rows.nbytes
            read, gram = (
                statistics.median(timed(work))
                for work in (lambda rows=rows: rows.sum(0), lambda rows=rows: rows @ rows.t())
            )
            for rule in RULES if d < SIZES[-1] else [rule for rule in RULES if rule.large]:
                row = measure(rows, rule, read, gram, left)
                measured.append(row)
                times = f"ours {spread(row.ours):28} ByzFL {spread(row.theirs):30}"
                print(f"{rule.text:34} n={n:<4} d={d:<11,} {times} {row.note}", flush=True)
            del rows
    byzfl_version = metadata.version("byzfl") if byzfl else "not installed"
    (HERE / "aggregators.md").write_text(
        table(measured, options.threads, byzfl_version), encoding="utf-8"
    )
    draw(measured, HERE / "aggregators.svg")


if __name__ == "__main__":
    main()
