"""What lies in the data folder: for every dataset which files are there, which are missing or corrupt, and how to get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backstop.platform import intake, plugins
from backstop.platform.contract import Dataset, File
from backstop.platform.params import BadInput


def _dataset(name: str) -> Dataset:
    found: Dataset = plugins.build("datasets", name, {})
    return found


def _row(folder: Path, file: File, role: str) -> dict[str, Any]:
    return {"path": file.path, "role": role, "state": intake.status(folder, file), "md5": file.md5, "hint": file.hint}


def look(name: str, folder: Path) -> dict[str, Any]:
    """One dataset as a plain object; ``usable`` when every file that it needs is present. Edge cases are needed by an attack only."""
    plugin, dataset = plugins.find("datasets", name), _dataset(name)
    files = [_row(folder, file, "data") for file in dataset.files]
    edges = list({file.path: _row(folder, file, "edge cases") for file in dataset.edge_files}.values())
    return {
        "name": name,
        "summary": plugin.summary,
        "kinds": list(plugin.facts.get("KINDS", ())),
        "usable": all(row["state"] == "present" for row in files),
        "files": files + edges,
        "can_download": dataset.download is not None,
    }


def download(name: str, folder: Path) -> None:
    """Fetch what is missing. Raises BadInput where the dataset has no downloader or the network does not allow it."""
    dataset = _dataset(name)
    if all(intake.status(folder, file) == "present" for file in dataset.files):
        return
    if dataset.download is None:
        raise BadInput(f"dataset {name} has no downloader; {dataset.files[0].hint if dataset.files else 'it needs no files'}")
    dataset.download(folder)
