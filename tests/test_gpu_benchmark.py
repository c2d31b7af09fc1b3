"""benchmarks/gpu.py runs on a CPU with torch alone, keeps its budget and says what failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

from backstop.platform.contract import BrokenStage
from benchmarks import gpu

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
NOT_NEEDED = ("ray", "mlflow", "optuna", "pandas", "sklearn", "scipy", "numba", "matplotlib")
SCRIPT = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_NEEDED}))
from benchmarks.gpu import main
sys.exit(main(sys.argv[1:]))
"""


def job(measure: Callable[[float], gpu.Figures]) -> gpu.Job:
    return gpu.Job({"rule": "toy"}, measure)


def raising(error: BaseException) -> gpu.Job:
    def measure(_: float) -> gpu.Figures:
        raise error

    return job(measure)


def test_every_section_runs_with_torch_alone(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--device", "cpu", "--tiny", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["rules on the CPU"] == "in torch: numba is not installed"
    lines = {name: section["lines"] for name, section in report["sections"].items()}
    assert list(lines) == list(gpu.SECTIONS)
    every = [line for section in lines.values() for line in section]
    assert not [line for line in every if "note" in line or "error" in line]
    assert {line["engine"] for line in lines["engines"]} == {"loop", "vmap"}
    assert len(lines["rules"]) >= 12
    assert all(line["agrees"] for name in ("engines", "rules") for line in lines[name])
    assert [line["trials"] for line in lines["trials"]] == [1, 2]
    assert all(line["rounds/s of all"] > 0 for line in lines["trials"])
    assert {line["images"] for line in lines["paper"]} == {"made up"}
    for section in gpu.SECTIONS.values():
        assert section.title in done.stdout


def test_what_the_budget_leaves_no_time_for_is_listed() -> None:
    jobs = [job(lambda _: {"ms": 1.0})] * 2
    lines = gpu.conduct(jobs, time.perf_counter() - 1, CPU)
    assert lines == [{"rule": "toy", "note": "not run: the budget was spent"}] * 2


def test_a_measurement_that_outlasts_its_time_is_stopped() -> None:
    def endless(_: float) -> gpu.Figures:
        while True:
            try:
                time.sleep(0.01)
            except Exception:  # stands for a stage's errors, which are caught on the way
                continue

    line = gpu.measure(job(endless), 0.1, 0.1, CPU)
    assert line == {"rule": "toy", "note": "stopped after 0 s"}


def test_time_that_is_left_goes_to_what_follows() -> None:
    shares: list[float] = []

    def measure(share: float) -> gpu.Figures:
        shares.append(share)
        return {}

    gpu.conduct([job(measure)] * 3, time.perf_counter() + 9, CPU)
    assert shares == pytest.approx([3, 4.5, 9], abs=0.2)


@pytest.mark.parametrize("wrapped", [False, True])
def test_out_of_memory_is_said_and_is_no_failure(wrapped: bool) -> None:
    error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB")
    if wrapped:
        stage = BrokenStage("defense krum", "OutOfMemoryError")
        stage.__cause__, error = error, stage
    line = gpu.measure(raising(error), 1, 1, CPU)
    assert line == {"rule": "toy", "note": "out of memory"}
    assert not gpu.failures({"rules": {"lines": [line]}})


def test_another_error_is_a_line_of_the_table_and_a_failure() -> None:
    line = gpu.measure(raising(RuntimeError("cuDNN\nerror")), 1, 1, CPU)
    assert line == {"rule": "toy", "error": "RuntimeError: cuDNN error"}
    assert gpu.failures({"rules": {"lines": [line]}}) == ["rules: toy RuntimeError: cuDNN error"]


@pytest.mark.parametrize("apart", [1.0, float("nan")])
def test_devices_that_disagree_are_named_and_end_with_1(
    apart: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "difference", lambda one, other: apart)
    assert gpu.main(["--device", "cpu", "--tiny", "--sections", "rules"]) == 1
    assert "FAILED rules: krum" in capsys.readouterr().err


def test_seconds_on_a_gpu_are_read_when_the_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            order.append("event")

        def elapsed_time(self, _: Event) -> float:
            order.append("read")
            return 1500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: order.append("synchronize"))
    taken = gpu.seconds_of(torch.device("cuda"), lambda: order.append("work"))
    assert taken == 1.5
    assert order == ["synchronize", "event", "work", "event", "synchronize", "read"]


def test_strict_arithmetic_puts_the_settings_back() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic
    with gpu.strict_arithmetic():
        assert (cudnn.allow_tf32, cudnn.deterministic) == (False, True)
    assert (cudnn.allow_tf32, cudnn.deterministic) == before


def test_a_trial_that_cannot_start_says_why() -> None:
    ours, theirs = Pipe()
    gpu.trial(theirs, "tpu", gpu.TINY)
    with pytest.raises(RuntimeError, match="a trial failed: BadInput: device 'tpu'"):
        gpu.receive(ours)
    theirs.close()
    with pytest.raises(RuntimeError, match="the process of a trial died"):
        gpu.receive(ours)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sections", "rules,speed"], "no section 'speed'"),
        (["--budget", "0"], "seconds above 0"),
        (["--device", "tpu"], "auto, cpu or cuda"),
        (["--out", "no such folder/gpu.json"], "there is no folder"),
    ],
)
def test_options_that_are_not_allowed_end_with_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(options)
    assert message in capsys.readouterr().err


def test_the_full_size_is_the_published_one() -> None:
    paper: Any = gpu.FULL.paper
    assert (paper.clients, paper.per_round, paper.batch, paper.eval_every) == (100, 20, 64, 5)
    assert (str(paper.dataset), str(paper.model)) == ("cifar10", "resnet18")
    assert gpu.FULL.side == 32 and gpu.noise(50_000, 1).test.x.shape[0] == 10_000
