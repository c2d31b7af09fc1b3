"""What kind of plug-in a file is, by what its function returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backstop.platform import plugins
from backstop.platform.contract import Attack, Dataset, Defense, Search, Spec
from backstop.platform.params import BadInput

ANYTHING = "search_spaces"  # the group whose facts every file fulfills


def group_of(path: str) -> str:
    """The group of a plug-in in a file. Raises BadInput for what is none."""
    file = Path(path)
    for group in plugins.PACKAGES:
        if file.resolve().parent == plugins.folder(group).resolve():
            return group
    factory = plugins.load_file(path, ANYTHING).factory
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"{path}: {file.stem}() without parameters raised {type(error).__name__}: {error}"
        ) from error
    kind = _group_of(made)
    if kind is None:
        raise BadInput(
            f"{path}: {file.stem}() returns {type(made).__name__}, which is no plug-in;"
            " a Defense, an Attack, a Dataset, a function that builds a model, Specs or a Search"
        )
    return kind


def _group_of(made: Any) -> str | None:
    kinds: dict[type, str] = {
        Attack: "attacks",
        Defense: "defenses",
        Dataset: "datasets",
        Search: "search_spaces",
    }
    for kind, group in kinds.items():
        if isinstance(made, kind):
            return group
    if isinstance(made, list) and made and all(isinstance(item, Spec) for item in made):
        return "search_spaces"
    return "models" if callable(made) else None
