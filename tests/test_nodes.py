"""Nodes of different kinds: trials go to those that compute alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from backstop.platform.params import BadInput
from backstop.platform.workers.fingerprints import Alike, Node, choose_alike

NODES = [
    Node("a", "10.0.0.1", 8, "old"),
    Node("b", "10.0.0.2", 4, "new"),
    Node("c", "10.0.0.3", 6, "new"),
]


def test_nodes_that_compute_alike_are_all_taken_and_those_that_join_too() -> None:
    assert choose_alike(NODES[1:], []) == Alike("new", None)
    assert choose_alike(NODES[1:], ["new"]) == Alike("new", None)


def test_of_several_kinds_the_one_with_the_most_processors_is_taken_and_the_others_are_named() -> (
    None
):
    chosen = choose_alike(NODES, [])
    assert chosen[:2] == ("new", ["b", "c"])
    assert chosen.remark == (
        "trials run on 2 of 3 nodes, those of new; figures of the others are not comparable digit"
        " by digit: 10.0.0.1 is old; --mix-fingerprints takes all"
    )


def test_stored_runs_decide_which_nodes_are_taken() -> None:
    assert choose_alike(NODES, ["old"])[:2] == ("old", ["a"])


@pytest.mark.parametrize("stored", [["older"], ["old", "new"], ["new", "older"]])
def test_a_sweep_is_refused_where_its_runs_could_not_be_compared(stored: list[str]) -> None:
    nodes = NODES if stored != ["old", "new"] else NODES[1:]
    with pytest.raises(BadInput, match="not comparable digit by digit; choose another"):
        choose_alike(nodes, stored)


CLUSTER = """
    import sys
    from ray.cluster_utils import Cluster
    from backstop.platform import cli

    small = dict(object_store_memory=80_000_000, include_dashboard=False)
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=2, **small))
    # another instruction set, as another kind of machine has it
    cluster.add_node(num_cpus=1, env_vars={"ATEN_CPU_CAPABILITY": "default"}, **small)
    arguments = ["--ray-address", cluster.address, "--store", "s", "--device", "cpu"]
    code = cli.main(["sweep", "mine.py", *arguments])
    cluster.shutdown()
    sys.exit(code)
"""
SPACE = '''
    """Four small runs."""
    from backstop.platform.contract import Part, Spec

    def mine():
        small = Spec(dataset=Part("synthetic"), model=Part("logistic"), clients=4, per_round=4,
                     rounds=2, batch=16, root_size=4, alpha=None, malicious=0.0)
        return [small.replace(seed=seed) for seed in range(4)]
'''


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_trials_of_a_mixed_cluster_run_on_nodes_that_compute_alike(tmp_path: Path) -> None:
    from backstop.platform.results.tracking.runs import read_runs
    from backstop.platform.results.tracking.store import locate_store

    (tmp_path / "mine.py").write_text(dedent(SPACE))
    done = subprocess.run(
        [sys.executable, "-c", dedent(CLUSTER)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "backstop: trials run on 1 of 2 nodes, those of backstop" in done.stderr
    runs = read_runs(locate_store(tmp_path / "s"), "mine")
    assert len(runs) == 4
    (made_with,) = {run.fingerprint for run in runs}
    assert "DEFAULT" not in made_with
