"""Settings and fixtures of all tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

# Before anything imports ray or mlflow: a test run is private, silent, and leaves no token in the
# home folder. It computes on the CPU, whose bytes are the golden ones; CUDA_VISIBLE_DEVICES=0 in
# the environment gives the tests of a GPU theirs.
os.environ.update(
    CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    MPLBACKEND="agg",
    OMP_NUM_THREADS="1",
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
)
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "RAY_ADDRESS"):
    os.environ.pop(name, None)

import hypothesis
import pytest
import torch

from backstop.platform import plugins
from backstop.platform.results.tracking.store import client_class

client_class()  # with MLflow here, the process that tests may patch is the one that writes

# the bits of a sum depend on it, and threads of several workers collapse on a small machine
torch.set_num_threads(1)

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("fixed")

# kept here: a test may put something else in their place
CACHES = (plugins.sources, plugins._find, plugins._describe, plugins.digest)

TOYS = {
    "attacks.stamp": '''
        """Stamps."""
        VERSION, KINDS, TRIGGER = 1, ("image",), True
        def stamp(
            *,
            target: Annotated[int, Range(0, 9)] = 0,
            size: Annotated[int, Range(1, 8), "pixels"] = 3,
        ) -> str:
            return f"stamp {target} {size}"
    ''',
    "attacks.flip": '''
        """Flips."""
        VERSION, TRIGGER = 3, True
        def flip(*, loud: bool = False) -> str:
            return f"flip {loud}"
    ''',
    "attacks.scale": '''
        """Scales."""
        STRENGTH, TRIGGER = "factor", False
        def scale(*, factor: Annotated[float, Range(1, 100, log=True)] = 10.0) -> str:
            return f"scale {factor}"
    ''',
    "defenses.clip": '''
        """Clips rows.

        More text.
        """
        def clip(
            *, norm: Annotated[float, Range(0, 100, low_open=True), "largest norm kept"] = 1.0
        ) -> str:
            return f"clip {norm}"
    ''',
    "defenses.middle": '''
        """Takes the middle."""
        def middle(*, how: Literal["low", "high"] = "low", count: int | None = None) -> str:
            return f"middle {how} {count}"
    ''',
    "datasets.pictures": '''
        """Pictures."""
        KINDS = ("image",)
        def pictures() -> str:
            return "pictures"
    ''',
    "datasets.sheet": '''
        """A table."""
        KINDS = ("table",)
        def sheet() -> str:
            return "sheet"
    ''',
    "models.line": '''
        """A line."""
        def line(*, width: Annotated[int, Range(1, 64)] = 8) -> str:
            return f"line {width}"
    ''',
    "search_spaces._hidden": '''
        """Not a plug-in."""
    ''',
    "search_spaces.one": '''
        """One."""
        def one() -> list[str]:
            return ["one"]
    ''',
}


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data sets."""
    given = os.environ.get("BACKSTOP_DATA")
    if not given:
        pytest.skip("BACKSTOP_DATA is not set: no folder with the real data sets")
    if not Path(given).is_dir():
        pytest.skip(f"BACKSTOP_DATA={given} is no folder: no real data sets")
    return Path(given)


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of toy plug-ins in place of the real one, so that tests of the machinery do not
    hang on real methods.
    """
    root = tmp_path / "toybox"
    for name, source in TOYS.items():
        group, stem = name.split(".")
        (root / group).mkdir(parents=True, exist_ok=True)
        head = "from typing import Annotated, Literal\nfrom backstop.platform.params import Range\n"
        sheet, _, rest = dedent(source).strip().partition('"""\n')
        docstring = f'{sheet}"""\n' if rest else sheet + "\n"
        (root / group / f"{stem}.py").write_text(docstring + head + rest)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        plugins, "PACKAGES", {group: f"toybox.{group}" for group in plugins.PACKAGES}
    )
    # what other packages install is no business of the tests
    monkeypatch.setattr(plugins, "entry_points", lambda group: ())
    forget()
    yield root
    forget()


def forget() -> None:
    """Drop what the registry remembers, and the toy modules."""
    for cache in CACHES:
        cache.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "toybox"]:
        del sys.modules[name]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests and all modules stay to the end: the collector need not look at them, each
    time that it looks at everything.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share something run in one process, wherever files are dealt to several."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.side_by_side import ByFile

    return ByFile(config, log)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One for each core, and one whose tests start Ray and wait for its processes."""
    return 1 + (yield)


def pytest_addoption(parser: pytest.Parser) -> None:
    """An explicit way to renew golden values."""
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="write the golden values of this run instead of comparing with the stored ones",
    )
