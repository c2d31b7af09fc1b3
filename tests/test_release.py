"""What is released: the two distributions, and the wheel in an environment and a folder that know
nothing of the repository.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest
import torch
import yaml

import backstop
from backstop.platform import plugins

ROOT = Path(__file__).resolve().parents[1]
LINKS = ("platform", "attacks", "defenses", "search_spaces")
BESIDE = (  # what the source distribution holds besides the package
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "constraints.txt",
    "pyproject.toml",
)
BUILD = (  # b changes argv
    "import sys; from setuptools import build_meta as b; out = sys.argv[2];"
    " getattr(b, f'build_{sys.argv[1]}')(out)"
)
CHECKOUT = {"PYTHONPATH", "VIRTUAL_ENV", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"}
ID = "import backstop; backstop.__version__ = '9.9.9'; print(backstop.Spec().id)"
# a command that would bring the project of this name on the package index, which is another one
FOREIGN = re.compile(
    r"(?:pip|pipx|uv tool) install\b[^#\n]*[\s'\"]backstop(?:[\s\[='\"`]|$)"
    r"|(?:uvx|pipx run) backstop\b",
    re.MULTILINE,
)

TEXT = {"type": "string", "minLength": 1}
PERSON = {
    "type": "object",
    "required": ["family-names", "given-names"],
    "additionalProperties": False,
    "properties": {"family-names": TEXT, "given-names": TEXT},
}
ENTITY = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {"name": TEXT},
}
AUTHORS = {"type": "array", "minItems": 1, "items": {"anyOf": [PERSON, ENTITY]}}
CITATION = {  # what the Citation File Format 1.2.0 asks for, of the keys that are in use
    "type": "object",
    "required": ["cff-version", "message", "title", "authors"],
    "additionalProperties": False,
    "properties": {
        "cff-version": {"const": "1.2.0"},
        "message": TEXT,
        "type": {"enum": ["software", "dataset"]},
        "title": TEXT,
        "abstract": TEXT,
        "version": TEXT,
        "license": TEXT,
        "keywords": {"type": "array", "minItems": 1, "uniqueItems": True, "items": TEXT},
        "authors": AUTHORS,
        "references": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["type", "title", "authors"],
                "additionalProperties": False,
                "properties": {
                    "type": {"enum": ["conference-paper", "article"]},
                    "title": TEXT,
                    "authors": AUTHORS,
                    "collection-title": TEXT,
                    "conference": ENTITY,
                    "volume": {"type": ["string", "integer"]},
                    "year": {"type": "integer"},
                    "notes": TEXT,
                },
            },
        },
    },
}


def package_files() -> set[str]:
    """What has to be in the package, by its path in a wheel."""
    page = ("page.html", "page_detail.html", "page.css", "page.js")
    files = {f"backstop/platform/results/report/{file}" for file in page}
    for folder in LINKS:
        for pattern in ("*.py", "triggers/*.png"):
            files |= {
                f"backstop/{file.relative_to(ROOT).as_posix()}"
                for file in (ROOT / folder).rglob(pattern)
            }
    files |= {f"backstop/{file.name}" for file in (ROOT / "src/backstop").glob("*.py")}
    return files | {"backstop/py.typed"}


def build(kind: str, folder: Path, out: Path) -> Path:
    """A distribution of the project in a folder, made as every front end makes it."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)],
        cwd=folder,
        env=outside(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [made] = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def outside() -> dict[str, str]:
    """The environment of somebody who has no checkout."""
    return {name: value for name, value in os.environ.items() if name not in CHECKOUT}


class Built(NamedTuple):
    """The distributions; the wheel is made from the unpacked source distribution."""

    source: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions, of the files of this checkout."""
    place = tmp_path_factory.mktemp("built")
    copy, unpacked, out = place / "copy", place / "unpacked", place / "out"
    for folder in (copy, unpacked, out):
        folder.mkdir()
    for item in (*LINKS, "src"):
        shutil.copytree(
            ROOT / item,
            copy / item,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    for item in (*BESIDE, "MANIFEST.in"):
        shutil.copy(ROOT / item, copy / item)
    source = build("sdist", copy, out)
    with tarfile.open(source) as archive:
        archive.extractall(unpacked, filter="data")
    [root] = unpacked.iterdir()
    return Built(source, build("wheel", root, out))


@pytest.mark.slow
def test_the_source_distribution_holds_the_package_and_what_stands_beside_it(built: Built) -> None:
    with tarfile.open(built.source) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert built.source.name == f"backstop-{backstop.__version__}.tar.gz"
    assert {f"src/{entry}" for entry in package_files()} | set(BESIDE) <= set(members)
    assert not any(member.issym() for member in members.values())  # real files: unpacks anywhere
    assert not [entry for entry in members if entry.startswith(("tests", "docs", "benchmarks"))]


@pytest.mark.slow
def test_the_wheel_of_the_source_distribution_holds_the_package_and_nothing_else(
    built: Built,
) -> None:
    about = f"backstop-{backstop.__version__}.dist-info"
    with zipfile.ZipFile(built.wheel) as archive:
        held = {entry for entry in archive.namelist() if ".dist-info/" not in entry}
        metadata = archive.read(f"{about}/METADATA").decode()
        entry_points = archive.read(f"{about}/entry_points.txt").decode()
    assert held == package_files()
    assert f"\nVersion: {backstop.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "backstop = backstop.platform.cli:main" in entry_points


class Installed(NamedTuple):
    """A fresh environment that holds the wheel, and a folder to work in."""

    programs: Path
    folder: Path
    environment: Mapping[str, str]

    def run(self, program: str, *words: str, code: int = 0) -> str:
        """What a program of the environment prints on stdout."""
        done = subprocess.run(
            [str(self.programs / program), *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own, which finds the dependencies where they are
    installed already.
    """
    place = tmp_path_factory.mktemp("installed")
    folder = place / "elsewhere"
    folder.mkdir()
    environment = outside() | {
        "NO_COLOR": "1",
        "BACKSTOP_CACHE": str(place / "cache"),
        "BACKSTOP_DATA": str(place / "data"),
    }
    programs = place / "environment" / "bin"
    subprocess.run([sys.executable, "-m", "venv", str(programs.parent)], check=True)
    found = Installed(programs, folder, environment)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(found.run("python", "-c", where).strip())
    dependencies = Path(torch.__file__).parents[1]
    # a path alone: what makes this checkout importable there (.pth files) is not read
    (own / "dependencies.pth").write_text(f"{dependencies}\n")
    options = ("--quiet", "--no-deps", "--no-index", "--ignore-installed")
    found.run("python", "-m", "pip", "install", *options, str(built.wheel))
    return found


@pytest.mark.slow
def test_the_wheel_is_what_runs_and_has_every_plugin(installed: Installed) -> None:
    home = "import backstop, sys; print(backstop.__file__, *sys.path)"
    assert str(ROOT / "src") not in installed.run("python", "-c", home)
    assert installed.run("backstop", "--version") == f"backstop {backstop.__version__}\n"
    listed = json.loads(installed.run("backstop", "list", "--json"))
    for group in plugins.PACKAGES:
        found = [item["name"] for item in listed if item["group"] == group]
        assert found == plugins.names(group)
    assert "Checked:" in installed.run("backstop", "show", "invariant")


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
def test_the_wheel_runs_sweeps_writes_its_page_and_verifies(installed: Installed) -> None:
    size = ("--rounds", "2", "--clients", "8", "--per-round", "4")
    assert "badnets" in installed.run("backstop", "run", "--attack", "badnets", *size, "--json")
    installed.run("backstop", "sweep", "smoke", "--experiment", "first", "--out", "board")
    board = installed.folder / "board"
    page = (board / "leaderboard.html").read_text(encoding="utf-8")
    assert "<style>" in page and "<script>" in page and "invariant" in page
    assert {file.suffix for file in board.iterdir()} >= {".html", ".json", ".md", ".tex", ".csv"}
    installed.run("backstop", "verify", "board/leaderboard.json", "--sample", "2")
    installed.run("backstop", "sweep", "smok", code=2)


def test_no_id_hangs_on_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ID],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == backstop.Spec().id


def test_the_version_is_that_of_the_changelogs_first_section_and_of_the_citation() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest == citation["version"] == backstop.__version__


def test_the_sections_of_the_changelog_are_those_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert releases
    for release in releases:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] – (\d{4}-\d\d-\d\d|unreleased)", release), release
    kinds = re.findall(r"^### (\w+)", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_a_citation_file_and_names_the_paper_as_its_data_sheet_does() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    jsonschema.validate(citation, CITATION)
    [paper] = citation["references"]
    source = plugins.find("defenses", "invariant").source
    assert paper["title"] in source and str(paper["year"]) in source
    for author in paper["authors"]:
        assert f"{author['given-names'][0]}. {author['family-names']}" in source
    wrong = {**citation, "authors": []}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, CITATION)


def test_nothing_that_is_read_installs_the_other_project_of_this_name() -> None:
    foreign = ("pip install backstop", "pip install 'backstop[flower]'", "uvx backstop list")
    own = ("pipx install dist/backstop-0.2.0-py3-none-any.whl", "uvx --from . backstop list")
    assert [bool(FOREIGN.search(line)) for line in (*foreign, *own)] == [True] * 3 + [False] * 2
    folders = (ROOT / name for name in ("docs", "deploy", "src", "platform"))
    files = [*ROOT.glob("*.md"), *(file for folder in folders for file in folder.rglob("*"))]
    texts = (".md", ".ipynb", ".py", ".yaml", ".sh", ".html")
    for file in files:
        if file.suffix in texts:
            assert not FOREIGN.search(file.read_text(encoding="utf-8")), file
