"""The garbage collector rests while modules are imported, works in the rounds, and has no last turn
when a command ends.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from backstop.platform import collector

RUN = ["run", "--rounds", "1", "--clients", "4", "--per-round", "2"]


def test_it_rests_within_the_block_only() -> None:
    with collector.resting():
        assert not gc.isenabled()
        with collector.resting():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), collector.resting():
        raise ImportError
    assert gc.isenabled()


def test_where_it_is_off_it_stays_off() -> None:
    gc.disable()
    try:
        with collector.resting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


WATCHED = f"""
import atexit, gc, sys
atexit.register(lambda: print("frozen at the end:", gc.get_freeze_count() > 0))
from backstop.platform import cli
from backstop.platform.commands import run

def walks():
    return gc.get_stats()[2]["collections"]

def train(*given):
    print("walks over everything:", walks() - before)
    from backstop.platform.experiment import Experiment
    one_round = Experiment.round
    def watched(self):
        print("at work in a round:", gc.isenabled())
        return one_round(self)
    Experiment.round = watched
    return real(*given)

before, real, run._train = walks(), run._train, train
sys.exit(cli.main({RUN!r}))
"""


def test_a_run_imports_without_it_trains_with_it_and_ends_without_it(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.splitlines() == [
        "walks over everything: 0",
        "at work in a round: True",
        "frozen at the end: True",
    ]
