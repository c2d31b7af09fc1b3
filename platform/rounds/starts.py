"""What a model starts from: a checkpoint file named by its content, or the end of a clean warm-up
that many experiments share.

A checkpoint is kept under the sha256 of its bytes, so a spec that names it means these very bytes.
A warm-up is a function of a spec itself, so what is kept of it is a cache: where it is lost, it is
computed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from backstop.platform import storage, vault
from backstop.platform.disk import file_lock, write_atomically
from backstop.platform.params import BadInput
from backstop.platform.specs.spec import START_HINT, Spec
from backstop.platform.storage import Location

if TYPE_CHECKING:
    from torch import Tensor

SCHEDULE = ("attack_start", "attack_stop", "attack_every", "attackers")


def keep_start(file: str) -> str:
    """Keep a copy of a checkpoint and return its name, ``sha256-…``, which is returned as it is.
    BadInput for a file that is none.
    """
    if vault.KEPT_NAME.fullmatch(file):
        return file
    path = Path(file).expanduser()
    if not path.is_file():
        raise BadInput(f"start={file!r}: there is no such file; {START_HINT}")
    read_tensors(path)
    return vault.keep_bytes(path.read_bytes())


def check_writable(file: str) -> Path:
    """The path of a checkpoint to be written at the end of a run, or BadInput before anything is
    trained.
    """
    path = Path(file).expanduser()
    written = path if path.exists() else path.parent
    if path.is_dir() or not path.parent.is_dir() or not os.access(written, os.W_OK):
        raise BadInput(
            f"--save {file!r} cannot be written; give the path of a file in a folder that exists,"
            " e.g. model.safetensors"
        )
    vault.check_usable()
    return path


def save_start(path: Path, model: Mapping[str, Tensor]) -> str:
    """Write a checkpoint and keep it; its name."""
    from safetensors.torch import save as packed

    content = packed({name: tensor.detach().cpu().contiguous() for name, tensor in model.items()})
    write_atomically(path, content)
    return keep_start(str(path))


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Name → tensor of a checkpoint; nothing in the file is run."""
    from backstop.platform.intake.files import naming_file

    with naming_file(path, START_HINT):
        return _tensors(path.read_bytes(), path)


def _tensors(content: bytes, path: Location) -> Mapping[str, Tensor]:
    """Name → tensor of a checkpoint, the content of a path. Raises what a decoder raises."""
    import torch

    if content.startswith(b"PK"):
        tensors = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
        tensors = tensors.get("state_dict", tensors)
    else:
        from safetensors.torch import load

        tensors = load(content)
    if not tensors or not all(isinstance(item, torch.Tensor) for item in tensors.values()):
        raise BadInput(f"{path} holds no named tensors; {START_HINT}")
    return dict(tensors)


def find_start(name: str, folder: Path) -> Mapping[str, Tensor]:
    """Name → tensor of a kept checkpoint, looked for in the cache and in ``starts`` of the data
    folder.
    """
    own, supplied = vault.cache() / name, folder / "starts" / name
    path = next((path for path in (own, supplied) if storage.exists(path)), None)
    if path is None:
        raise BadInput(
            f"start={name} is neither in {own.parent} nor in {supplied.parent};"
            " give its file once: --start FILE"
        )
    with storage.open_read(path) as file:
        content = file.read()
    if vault.name_by_content(content) != name:
        raise BadInput(
            f"start={name}: {path} was changed; remove it and give the file once more: --start FILE"
        )
    return read_tensors(path) if isinstance(path, Path) else _tensors(content, path)


def warmup_spec(spec: Spec) -> Spec:
    """The warm-up of a spec as a spec: the same federation without attack and defense."""
    unscheduled = {name: getattr(Spec(), name) for name in SCHEDULE}
    return spec.replace(
        **unscheduled,
        attack=(),
        defense=(),
        dormant=False,
        evaluate_by="server",
        warmup=0,
        rounds=spec.warmup,
        eval_every=spec.warmup,
    )


def compute_once(
    key: str, make: Callable[[Location], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """What ``make`` returns, made once for all processes of this machine. Of those that come while
    it is made, all others wait. Machines that begin together make it once each, to the same bytes.

    ``make`` is given a folder in which it may keep what it has so far.
    """
    path = _warm_path(key)
    # without the lock: a cache that can only be read is enough for a warm-up that is there
    warm = _made(path)
    if warm is not None:
        return warm
    with ExitStack() as held:
        with vault.keeping():
            held.enter_context(file_lock(vault.local_cache() / "warm" / f"{key}.lock"))
        warm = _made(path)
        if warm is None:
            params, buffers = warm = make(path.parent)
            import torch

            # a full disk makes torch's own writer raise something else than an OSError
            content = BytesIO()
            torch.save((params.cpu(), buffers.cpu()), content)
            with vault.keeping():
                storage.write_whole(path, content.getbuffer(), patient=True)
        return warm


def check_makeable(key: str) -> None:
    """Check that a warm-up is there or can be kept. Raises BadInput."""
    if not storage.exists(_warm_path(key)):
        vault.check_usable()


def _warm_path(key: str) -> Location:
    return vault.cache() / "warm" / f"{key}.pt"


def _made(path: Location) -> tuple[Tensor, Tensor] | None:
    """A finished warm-up; None where it is not made yet, or damaged: it is made again then, to the
    same bytes.
    """
    import torch

    try:
        with storage.open_read(path) as file:
            params, buffers = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 -- whatever a damaged file makes the decoder raise
        return None
    return params, buffers
