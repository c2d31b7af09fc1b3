"""What kind of plug-in a file is, by what its function returns."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from backstop.platform import loose, plugins
from backstop.platform.contract import Attack, Dataset, Defense, Search, Spec
from backstop.platform.params import BadInput

ANYTHING = "search_spaces"  # the group whose facts every file fulfills


def group_of(reference: str) -> str:
    """The group of a plug-in in a file, given by path, or of what the file calls by another name
    (``nets.py:Net``). Raises BadInput for what is none.
    """
    path, attribute = reference, ""
    if loose.is_path(reference):
        path, attribute = loose.split_path(reference)
    file = Path(path).expanduser()
    if attribute:
        return _group_of_part(loose.know(loose.read_file(path)), attribute)
    for group in plugins.PACKAGES:
        if file.resolve().parent == plugins.folder(group).resolve():
            return group
    factory = plugins.load_file(loose.read_file(path).place, ANYTHING).factory
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


def _group_of_part(file: loose.LooseFile, attribute: str) -> str:
    """The group of what a file calls by a name of its own: a plug-in, or else a model."""
    module = loose.import_file(file, f"plug-in {file.place}")
    factory = getattr(module, attribute, None)
    try:
        made = factory() if inspect.isfunction(factory) else None
    except Exception:  # noqa: BLE001 -- it needs what only the data say, as models do
        return "models"
    return _group_of(made) or "models"


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
