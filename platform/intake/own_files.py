"""Where a user's own files lie: below the data folder, or by their whole path."""

from __future__ import annotations

from pathlib import Path

from backstop.platform.contract import File
from backstop.platform.intake.files import locate_file
from backstop.platform.intake.patterns import matches
from backstop.platform.params import BadInput


def locate_own(folder: Path, file: File) -> list[Path]:
    """The files that are meant, in their order. Raises BadInput where there are none, which says so
    if they are in the working folder instead of the data folder.
    """
    if elsewhere := in_working_folder(folder, file):
        raise BadInput(f"{folder / file.path} is missing, and {elsewhere}")
    return matches(locate_file(folder, file))


def in_working_folder(folder: Path, file: File) -> str:
    """What to say where the file is not in the data folder but in the working folder."""
    here = Path(file.path).absolute()
    if matches(folder / file.path) or not matches(here):
        return ""
    return (
        f"{here} is there: paths are relative to the data folder; say --data-dir ., or name the"
        " file by its whole path"
    )
