"""Run the notebooks of docs/tutorials and store them with their outputs.

    python docs/_build/execute.py

Each runs in an empty folder with nothing but the published results beside it, as ``results/``. One
whose kernel is called ``flower`` runs in the environment of that name, which benchmarks/peers.py
makes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import ipykernel
import nbformat
from nbclient import NotebookClient
from notebook_pages import COLORS

DOCS = Path(__file__).resolve().parents[1]
TUTORIALS = DOCS / "tutorials"
LIMIT_S = 600  # of one cell
OWN = "python3"  # the kernel of the environment that runs this
KERNELS = {
    OWN: {"display_name": "Python 3", "language": "python", "name": OWN},
    "flower": {"display_name": "Python 3 with Flower", "language": "python", "name": "flower"},
}


def executed(file: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run of its cells. Raises CellExecutionError where one of
    them fails.
    """
    notebook = nbformat.read(file, as_version=4)
    kernel = notebook.metadata.get("kernelspec", KERNELS[OWN])["name"]
    python = Path(sys.executable) if kernel == OWN else peer(kernel)
    # for what begins with !
    os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["NO_COLOR"] = "1"
    os.environ.pop("MPLBACKEND", None)  # figures are to stand in the notebook
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as kernels:
        if kernel != OWN:
            describe(kernel, python, Path(kernels))
        (Path(folder) / "results").symlink_to(DOCS / "results")
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook,
            timeout=LIMIT_S,
            resources=resources,
            coalesce_streams=True,
            kernel_name=kernel,
        )
        client.execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "text" in output:  # of a terminal that ! opens
                output.text = COLORS.sub("", output.text).replace("\r\n", "\n")
    notebook.metadata = {"kernelspec": KERNELS[kernel]}
    return notebook


def peer(name: str) -> Path:
    """The Python of an environment that Backstop does not fit into. Raises SystemExit where there
    is none.
    """
    sys.path.append(str(DOCS.parent / "benchmarks"))
    from peers import environment

    python, why = environment(name)
    if python is None:
        raise SystemExit(why)
    return python


def describe(kernel: str, python: Path, folder: Path) -> None:
    """Let Jupyter find a kernel in another environment, with the ipykernel and the Backstop of this
    one.
    """
    packages = str(Path(ipykernel.__file__).parents[1])  # last: the environment's own come first
    start = f"import sys; sys.path.append({packages!r})"
    start += "; from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
    said = {
        **KERNELS[kernel],
        "argv": [str(python), "-c", start, "-f", "{connection_file}"],
        "env": {"PYTHONPATH": str(DOCS.parent / "src")},
    }
    place = folder / "kernels" / kernel
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(said), encoding="utf-8")
    os.environ["JUPYTER_PATH"] = str(folder)


def main() -> None:
    """Run them all, or those that are named."""
    named = [Path(word) for word in sys.argv[1:]]
    for file in named or sorted(TUTORIALS.glob("*.ipynb")):
        nbformat.write(executed(file), file)
        print(f"{file.name}: {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
