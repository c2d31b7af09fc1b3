"""Data files that scikit-learn brings along, found without importing it: its import takes longer
than a short run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from backstop.platform.intake.files import naming_file
from backstop.platform.params import BadInput

HINT = "run: pip install --force-reinstall scikit-learn"


@contextmanager
def bundled_file(dataset: str, name: str) -> Iterator[Path]:
    """A file of ``sklearn/datasets``, for the block to read.

    Raises BadInput where scikit-learn or the file is not there, or the block cannot read it.
    """
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise BadInput(
            f"dataset {dataset} comes with scikit-learn, which is not installed; "
            "run: pip install scikit-learn"
        )
    path = Path(package.submodule_search_locations[0], "datasets", name)
    if not path.is_file():
        raise BadInput(f"dataset {dataset}: there is no {path}; {HINT}")
    with naming_file(path, HINT):
        yield path
