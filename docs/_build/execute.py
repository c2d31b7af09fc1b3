"""Run the notebooks of docs/tutorials and store them with their outputs.

    python docs/_build/execute.py

Each runs in an empty folder with nothing but the published results beside it, as ``results/``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[1]
TUTORIALS = DOCS / "tutorials"
LIMIT_S = 600  # of one cell
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed(file: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run of its cells. Raises CellExecutionError where one of
    them fails.
    """
    notebook = nbformat.read(file, as_version=4)
    programs = Path(sys.executable).parent  # its own `backstop` for what begins with !
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    os.environ["NO_COLOR"] = "1"
    os.environ.pop("MPLBACKEND", None)  # figures are to stand in the notebook
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "results").symlink_to(DOCS / "results")
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=LIMIT_S, resources=resources, coalesce_streams=True
        )
        client.execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "text" in output:  # of a terminal that ! opens
                output.text = output.text.replace("\r\n", "\n")
    notebook.metadata = {"kernelspec": KERNEL}
    return notebook


def main() -> None:
    """Run them all, or those that are named."""
    named = [Path(word) for word in sys.argv[1:]]
    for file in named or sorted(TUTORIALS.glob("*.ipynb")):
        nbformat.write(executed(file), file)
        print(f"{file.name}: {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
