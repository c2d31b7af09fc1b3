"""Starts: checkpoints named by their content, and warm-ups that are the beginning of a longer clean
experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backstop.platform import cli, experiment, plugins, vault
from backstop.platform.contract import Data, Part, Samples, Spec
from backstop.platform.experiment import Experiment, State, run
from backstop.platform.params import BadInput
from backstop.platform.rounds import starts
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.spec import validate
from backstop.platform.sweeps.plan import preflight, warm_first
from backstop.platform.training import network
from backstop.platform.workers.clients import Clients

NOWHERE = Path("unused")
TINY = Spec(
    clients=12,
    per_round=6,
    malicious=0.34,
    selection="fixed",
    rounds=2,
    batch=16,
    block=4,
    root_size=20,
    optimizer=Part("sgd", {"lr": 0.1}),
)
ATTACKED = TINY.replace(
    attack=to_chain("badnets+model_replacement(strength=4)", "attack"),
    defense=to_chain("median", "defense"),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "starts"


def final(spec: Spec) -> State:
    states: list[State] = []
    list(run(spec, folder=NOWHERE, device="cpu", keep=states.append))
    return states[-1]


def model(spec: Spec = TINY) -> dict[str, Tensor]:
    made = Experiment(spec.replace(seed=5), NOWHERE, "cpu")
    return {
        name: tensor.contiguous().clone()
        for name, tensor in made.built.net.tensors(made.state.params, made.state.buffers).items()
    }


def test_a_warm_up_is_the_beginning_of_a_longer_clean_experiment() -> None:
    assert torch.equal(final(TINY.replace(warmup=3)).params, final(TINY.replace(rounds=5)).params)
    late = ATTACKED.replace(defense=(), warmup=3)
    assert torch.equal(
        final(late).params, final(late.replace(warmup=0, rounds=5, attack_start=3)).params
    )
    assert not torch.equal(final(late).params, final(TINY.replace(warmup=3)).params)


def test_the_accuracy_before_the_first_round_is_that_of_the_warm_up() -> None:
    warm = list(run(TINY.replace(rounds=3), folder=NOWHERE, device="cpu"))[-1].metrics
    for spec in (TINY, ATTACKED):
        last = list(run(spec.replace(warmup=3), folder=NOWHERE, device="cpu"))[-1].metrics
        assert last["run/start_accuracy"] == warm["round/clean_accuracy"]
    assert warm["run/start_accuracy"] < warm["round/clean_accuracy"]


def test_rounds_and_the_schedule_count_from_the_end_of_the_warm_up() -> None:
    records = list(
        run(ATTACKED.replace(warmup=3, rounds=3, attack_start=1), folder=NOWHERE, device="cpu")
    )
    assert [record.round for record in records] == [0, 1, 2]
    quiet, attacked = (
        list(
            run(
                ATTACKED.replace(warmup=3, rounds=3, defense=(), attack_start=start),
                folder=NOWHERE,
                device="cpu",
            )
        )
        for start in (2, 0)
    )
    clean = list(run(TINY.replace(warmup=3, rounds=3), folder=NOWHERE, device="cpu"))
    accuracy = [
        [record.metrics["round/train_loss"] for record in found]
        for found in (quiet, clean, attacked)
    ]
    assert accuracy[0] == accuracy[1] and accuracy[0] != accuracy[2]


def test_all_experiments_of_one_federation_share_a_warm_up_and_others_do_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = experiment._warm_up

    def counting(
        clean: Spec, folder: Path, device: str, clients: Clients, place: Path
    ) -> tuple[Tensor, Tensor]:
        made.append(clean.id)
        return real(clean, folder, device, clients, place)

    monkeypatch.setattr(experiment, "_warm_up", counting)
    shared = [
        TINY,
        ATTACKED,
        ATTACKED.replace(dormant=True),
        ATTACKED.replace(attackers="in_turn"),
        ATTACKED.replace(defense=(), rounds=3, attack_start=1, eval_every=2),
    ]
    for spec in shared:
        Experiment(spec.replace(warmup=2), NOWHERE, "cpu")
    assert len(made) == 1
    for spec in (
        TINY.replace(seed=1),
        TINY.replace(batch=8),
        TINY.replace(alpha=5.0),
        TINY.replace(dataset=Part("synthetic")),
    ):
        Experiment(spec.replace(warmup=2), NOWHERE, "cpu")
    assert len(set(made)) == len(made) == 5
    assert len(list((cache / "warm").glob("*.pt"))) == 5


def test_a_lost_or_damaged_warm_up_is_made_again_to_the_same_bytes(cache: Path) -> None:
    spec = TINY.replace(warmup=2)
    first = Experiment(spec, NOWHERE, "cpu").state.params
    (kept,) = (cache / "warm").glob("*.pt")
    kept.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(Experiment(spec, NOWHERE, "cpu").state.params, first)
    assert len(kept.read_bytes()) > 100


def test_a_stopped_warm_up_goes_on(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    spec = TINY.replace(warmup=3)
    whole = final(TINY.replace(rounds=3)).params
    monkeypatch.setattr(experiment, "WARMUP_SAVE_INTERVAL_S", 0.0)
    real, rounds = Experiment.round, []

    def stopping(self: Experiment) -> object:
        rounds.append(self.state.round)
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Experiment, "round", stopping)
    with pytest.raises(KeyboardInterrupt):
        Experiment(spec, NOWHERE, "cpu")
    assert torch.equal(Experiment(spec, NOWHERE, "cpu").state.params, whole)
    assert rounds == [0, 1, 2, 2]
    assert [file.suffix for file in (cache / "warm").iterdir() if file.suffix != ".lock"] == [".pt"]


@pytest.fixture
def barred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nothing can be made, not even by root: it is a file."""
    monkeypatch.delenv("BACKSTOP_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home/.cache/backstop/starts"


def test_a_home_that_cannot_be_written_is_said_in_one_line(
    barred: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    monkeypatch.setattr(experiment, "_warm_up", None)  # nothing is trained
    for words in (
        ["--warmup", "1"],
        ["--start", "model.safetensors"],
        ["--save", "new.safetensors"],
    ):
        assert cli.main(["run", *words, "--dataset", "synthetic", "--device", "cpu"]) == 2
        out, err = capsys.readouterr()
        *_, last = err.splitlines()
        assert last == (
            f"backstop: {barred} cannot be written: Not a directory; checkpoints and warm-ups are "
            "kept there;"
            " set BACKSTOP_CACHE to a folder that can be written"
        )
        assert out == "" and "Traceback" not in err
    with pytest.raises(BadInput, match="set BACKSTOP_CACHE"):  # what a sweep does before it starts
        preflight([TINY.replace(warmup=1)], NOWHERE, "cpu")


def test_a_user_without_a_home_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("BACKSTOP_CACHE")
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(BadInput, match="set BACKSTOP_CACHE"):
        vault.cache()


def test_a_warm_up_that_is_there_needs_a_cache_that_can_be_read_only(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TINY.replace(warmup=1)
    first = Experiment(spec, NOWHERE, "cpu").state.params

    def full(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", full)
    monkeypatch.setattr(vault, "TemporaryFile", full)
    preflight([spec], NOWHERE, "cpu")
    assert torch.equal(Experiment(spec, NOWHERE, "cpu").state.params, first)
    with pytest.raises(BadInput, match=r"Read-only file system; .* BACKSTOP_CACHE"):
        preflight([spec.replace(warmup=2)], NOWHERE, "cpu")


def test_another_dataset_behind_the_same_spec_is_another_warm_up(
    tmp_path: Path, cache: Path
) -> None:
    spec = TINY.replace(
        dataset=Part("table"), model=Part("logistic"), warmup=1, clients=6, per_round=3, root_size=5
    )
    for shift in (0, 1):
        folder = tmp_path / str(shift)
        folder.mkdir()
        rows = "".join(f"{i},{(i * 7 + shift) % 13},{i % 2}\n" for i in range(80))
        (folder / "table.csv").write_text("a,b,label\n" + rows)
        Experiment(spec, folder, "cpu")
    assert len(list((cache / "warm").glob("*.pt"))) == 2


def test_a_plan_is_rehearsed_without_its_warm_up(cache: Path) -> None:
    preflight([TINY.replace(warmup=10**6)], NOWHERE, "cpu")
    assert not (cache / "warm").exists()


def test_a_sweep_begins_with_one_experiment_for_each_warm_up() -> None:
    listed = [
        ATTACKED.replace(seed=seed, warmup=warmup, rounds=rounds)
        for warmup in (0, 2)
        for seed in (0, 1)
        for rounds in (1, 3)
    ]
    found = warm_first(listed)
    assert [(spec.seed, spec.warmup, spec.rounds) for spec in found[:2]] == [(0, 2, 1), (1, 2, 1)]
    assert found[2:] == [spec for spec in listed if spec not in found[:2]]


@pytest.mark.parametrize("form", ["safetensors", "state dict", "in a dict"])
def test_an_experiment_starts_from_a_checkpoint(form: str, tmp_path: Path) -> None:
    tensors, path = model(), tmp_path / "model"
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors if form == "state dict" else {"state_dict": tensors}, path)
    name = starts.keep_start(str(path))
    path.unlink()  # a copy is kept
    started = Experiment(TINY.replace(start=name), NOWHERE, "cpu")
    assert torch.equal(
        started.state.params, torch.cat([tensor.flatten() for tensor in tensors.values()])
    )
    assert not torch.equal(started.state.params, Experiment(TINY, NOWHERE, "cpu").state.params)
    assert TINY.replace(start=name).id != TINY.id
    assert starts.keep_start(name) == name


def test_the_name_is_the_content(tmp_path: Path) -> None:
    for number in (0, 1):
        save_file(model(), tmp_path / f"same{number}")
    other = model()
    other["output.bias"] += 1
    save_file(other, tmp_path / "other")
    names = [starts.keep_start(str(tmp_path / file)) for file in ("same0", "same1", "other")]
    assert names[0] == names[1] != names[2]


def test_a_checkpoint_in_the_data_folder_serves_as_well(tmp_path: Path, cache: Path) -> None:
    save_file(model(), tmp_path / "model")
    name = starts.keep_start(str(tmp_path / "model"))
    (cache / name).unlink()
    with pytest.raises(
        BadInput,
        match=r"is neither in .*cache/starts nor in .*/starts; give its file once: --start FILE",
    ):
        starts.find_start(name, tmp_path)
    (tmp_path / "starts").mkdir()
    (tmp_path / "model").rename(tmp_path / "starts" / name)
    starts.find_start(name, tmp_path)
    (tmp_path / "starts" / name).write_bytes(
        (tmp_path / "starts" / name).read_bytes()[:-4] + b"aaaa"
    )
    with pytest.raises(BadInput, match="was changed; remove it"):
        starts.find_start(name, tmp_path)


def test_a_last_layer_for_other_classes_keeps_its_fresh_values(tmp_path: Path) -> None:
    tensors = model()
    tensors["output.weight"], tensors["output.bias"] = torch.ones(3, 64), torch.ones(3)
    save_file(tensors, tmp_path / "model")
    started = Experiment(
        TINY.replace(start=starts.keep_start(str(tmp_path / "model"))), NOWHERE, "cpu"
    )
    fresh = Experiment(TINY, NOWHERE, "cpu")
    head = sum(torch.Size(slot.shape).numel() for slot in fresh.built.net.head_slots())
    assert torch.equal(started.state.params[-head:], fresh.state.params[-head:])
    assert torch.equal(
        started.state.params[:-head],
        torch.cat([tensors[name].flatten() for name in ("linear1.weight", "linear1.bias")]),
    )


def changed(**changes: Tensor | None) -> Mapping[str, Tensor]:
    named = {name.replace("_", ".", 1): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in (model() | named).items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"linear1_weight": None},
            r"the model's linear1.weight is of shape \(64, 64\), the checkpoint has no such tensor",
        ),
        (
            {"linear1_weight": torch.ones(3)},
            r"the model's linear1.weight is of shape \(64, 64\), the checkpoint has one of \(3,\)",
        ),
        (
            {"linear2_weight": torch.ones(3)},
            r"the model has no tensor 'linear2.weight', which the checkpoint holds",
        ),
    ],
)
def test_checkpoints_of_other_models_are_refused(
    tensors: Mapping[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    save_file(dict(changed(**tensors)), tmp_path / "model")
    name = starts.keep_start(str(tmp_path / "model"))
    with pytest.raises(BadInput, match=message):
        Experiment(TINY.replace(start=name), NOWHERE, "cpu")


@pytest.mark.parametrize("content", [b"", b"PK", b"not tensors", b"{}"])
def test_files_that_are_no_checkpoints_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BadInput, match="a checkpoint holds named tensors"):
        starts.keep_start(str(tmp_path / "file"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": Path("/")}, tmp_path / "file")
    with pytest.raises(BadInput, match="cannot be read: UnpicklingError"):
        starts.keep_start(str(tmp_path / "file"))


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"start='model\.pt' is not allowed; start is the name of a kept checkpoint"
    ):
        validate(TINY.replace(start="model.pt"))


def test_the_command_line_saves_starts_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, saved = str(tmp_path / "store"), str(tmp_path / "model.safetensors")
    short = ["--clients", "6", "--per-round", "3", "--rounds", "2", "--store", store]
    assert cli.main(["run", *short, "--save", saved]) == 0
    assert f"start from it with --start {saved} (sha256-" in capsys.readouterr().err
    assert cli.main(["run", *short, "--start", saved, "--warmup", "1"]) == 0
    assert cli.main(["run", *short, "--start", str(tmp_path / "none")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert cli.main(["run", *short, "--save", str(tmp_path / "none" / "model")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_published_image_weights_start_a_residual_network_but_for_its_last_layer(
    tmp_path: Path,
) -> None:
    """The form of torchvision's files: batch norm, the large stem, 1,000 classes."""
    from torchvision.models import resnet18

    published = resnet18(weights=None)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    known = starts.read_tensors(tmp_path / "resnet18.pth")
    samples = Samples(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]))
    data = Data(samples, samples, classes=10, kind="image")

    def net(**params: str) -> network.Network:
        return network.network(
            plugins.build("models", "resnet18", params)((3, 32, 32), 10),
            data,
            torch.device("cpu"),
            64,
        )

    fitting = net(norm="batch", stem="large")
    params, buffers = fitting.vectors(known)
    tensors = fitting.tensors(params, buffers)
    assert all(
        torch.equal(tensor, known[name])
        for name, tensor in tensors.items()
        if not name.startswith("fc.")
    )
    assert torch.equal(
        tensors["fc.weight"], fitting.tensors(fitting.params, fitting.buffers)["fc.weight"]
    )
    with pytest.raises(
        BadInput,
        match=(
            r"conv1.weight is of shape \(64, 3, 3, 3\), "
            r"the checkpoint has one of \(64, 3, 7, 7\)"
        ),
    ):
        net(norm="batch").vectors(known)
    with pytest.raises(BadInput, match=r"the model has no tensor 'bn1\.running_mean'"):
        net(stem="large").vectors(known)
