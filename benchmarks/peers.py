"""The environments of the projects that Backstop is measured beside, each made from the index once.

``python benchmarks/peers.py [--renew]`` makes them all; ``make bench`` makes those that are
missing. Each holds exactly the versions in benchmarks/peers/NAME.txt; PyTorch is the one in use
here, for everybody: the comparison is of what is built on it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
PINS = HERE / "peers"
PLACE = HERE / ".peers"
PATIENCE = 900.0  # seconds that a step of an environment gets
# what must be there before an environment counts as made
MODULES = {
    "flower": "flwr.simulation, ray, torch",
    "pfl": "pfl.aggregate, torch",
    "byzfl": "byzfl, torch",
    "nvflare": "nvflare.app_common.aggregators.model_aggregator, torch",
}
# the distribution whose version names the peer
NAMES = {"flower": "flwr", "pfl": "pfl", "byzfl": "byzfl"}
TESTED = {"nvflare": "nvflare"}  # nobody measures it; tests/test_flower.py runs in it


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip("=- \t")]
    return lines[-1] if lines else "no message"


def pinned(name: str) -> str:
    """The version of a peer: 1.42.0."""
    found = re.search(
        rf"^{(NAMES | TESTED)[name]}==(\S+)", (PINS / f"{name}.txt").read_text(), re.MULTILINE
    )
    assert found is not None
    return found[1]


def stamp(name: str) -> str:
    """What an environment was made of; where this changes, it is made anew."""
    made_of = f"{(PINS / f'{name}.txt').read_text()} {torch.__file__} {torch.__version__}"
    return hashlib.sha256(made_of.encode()).hexdigest()


def steps(name: str) -> list[list[str | Path]]:
    """The commands that make an environment."""
    python = PLACE / name / "bin" / "python"
    site = str(Path(torch.__file__).parents[1])
    link = f"import site; open(site.getsitepackages()[0] + '/torch.pth', 'w').write({site!r})"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [
        [sys.executable, "-m", "venv", "--clear", PLACE / name],
        [*pip, "--no-deps", "--requirement", PINS / f"{name}.txt"],
        [python, "-c", link],
        [python, "-c", f"import {MODULES[name]}"],
    ]


def environment(name: str, *, renew: bool = False) -> tuple[Path | None, str]:
    """The Python of a peer's environment, made where it is missing, or why there is none."""
    mark = PLACE / f"{name}.made"
    python = PLACE / name / "bin" / "python"
    if not renew and mark.exists() and mark.read_text() == stamp(name) and python.exists():
        return python, ""
    print(f"making an environment for {name} {pinned(name)} …", file=sys.stderr, flush=True)
    mark.unlink(missing_ok=True)
    for step in steps(name):
        try:
            done = subprocess.run(
                step, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return None, f"its environment took more than {PATIENCE:.0f} s to make"
        if done.returncode:
            shutil.rmtree(PLACE / name, ignore_errors=True)
            return None, f"its environment could not be made: {last_line(done.stderr)}"
    mark.write_text(stamp(name))
    return python, ""


def main() -> int:
    """Make all environments; 1 where one could not be made."""
    parser = argparse.ArgumentParser(description="Make the environments of the peers.")
    parser.add_argument("--renew", action="store_true", help="make them anew")
    options = parser.parse_args()
    failed = False
    for name in NAMES:
        python, why = environment(name, renew=options.renew)
        print(f"{name} {pinned(name)}: {why or python}")
        failed = failed or python is None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
