"""Models of other libraries, tiny: they need the extra ``models``, which the environment of the
other tests does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backstop.platform import cli, extras, plugins, vault
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.params import BadInput
from backstop.platform.seeds import seeded
from backstop.platform.specs.part import parse_part, to_chain

VIT = "vit_tiny(size=16, patch=4, depth=2)"
LORA = "lora_text(words=500, dim=16, layers=1, rank=2)"
SMALL = Spec(
    clients=16,
    per_round=4,
    malicious=0.25,
    selection="fixed",
    alpha=None,
    rounds=3,
    batch=16,
    root_size=20,
    optimizer=Part("adam", {"lr": 0.01}),
    defense=to_chain("norm_clip(norm=4)+median", "defense"),
)
IMAGES = SMALL.replace(
    model=parse_part(VIT),
    attack=to_chain("badnets", "attack"),
    optimizer=Part("adam", {"lr": 0.001}),
)
TEXTS = SMALL.replace(
    clients=4,
    dataset=Part("topics", {"samples": 300}),
    optimizer=Part("adam", {"lr": 0.03}),
    model=parse_part(LORA),
    attack=to_chain("phrase(share=0.5)", "attack"),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BACKSTOP_STARTS", raising=False)
    vault._kept.cache_clear()
    monkeypatch.chdir(tmp_path)


def need(*libraries: str) -> None:
    for library in libraries:
        reason = f"{library} is not installed: the extra models brings it"
        pytest.importorskip(library, reason=reason, exc_type=ImportError)


def losses(spec: Spec) -> list[float]:
    return [record.metrics["round/train_loss"] for record in run(spec)]


def built(spec: Spec) -> Experiment:
    return Experiment(spec.resolved, Path(), "cpu")


@pytest.mark.parametrize("model", [VIT, LORA])
def test_without_the_library_a_run_is_one_line_and_a_list_needs_none(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    name = model.partition("(")[0]
    base = IMAGES if name == "vit_tiny" else TEXTS
    assert len(base.id) == 64
    with pytest.raises(BadInput, match=rf"^model {name} needs .* not installed; the extra models"):
        built(base)
    assert cli.main(["show", name]) == 0
    assert "Weights" in capsys.readouterr().out or name == "lora_text"
    assert cli.main(["list", "models"]) == 0
    assert name in capsys.readouterr().out


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="size=30 is no multiple of patch=16"):
        plugins.build("models", "vit_tiny", {"size": 30})
    with pytest.raises(BadInput, match="dim=5 is odd"):
        plugins.build("models", "lora_text", {"dim": 5})


def test_a_vision_transformer_trains_and_is_repeated() -> None:
    need("timm")
    first = losses(IMAGES)
    assert first[-1] < first[0] and first[:1] == losses(IMAGES.replace(rounds=1))


@pytest.mark.parametrize(
    ("train", "trained"),
    [
        ("head", lambda name: name.startswith("net.head.")),
        ("norms", lambda name: "norm" in name or name.startswith("net.head.")),
        ("last", lambda name: name.startswith(("net.blocks.1.", "net.norm.", "net.head."))),
    ],
)
def test_a_part_of_a_vision_transformer_travels(train: str, trained: Callable[[str], bool]) -> None:
    need("timm")
    whole = built(IMAGES).built.net
    spec = IMAGES.replace(model=Part("vit_tiny", {**IMAGES.model.params, "train": train}))
    net = built(spec).built.net
    expected = [slot.name for slot in whole.layout if trained(slot.name)]
    assert [slot.name for slot in net.layout] == expected and len(expected) < len(whole.layout)
    assert not net.buffer_layout and not net.vectorized
    # the constants have the initial values that they would have anyway
    constant = net.module.get_buffer("net.blocks.0.attn.qkv.weight")
    assert torch.equal(constant, whole.module.get_parameter("net.blocks.0.attn.qkv.weight"))
    first = losses(spec)
    assert first[-1] < first[0]


def test_the_tiny_transformer_has_its_published_size() -> None:
    need("timm")
    net = plugins.build("models", "vit_tiny", {})((3, 32, 32), 7)
    assert sum(p.numel() for p in net.parameters()) == 5_524_416 + 193 * 7


def vit_weights(channels: int, size: int = 16) -> dict[str, Any]:
    import timm

    with seeded(0, "tests", "vit"):
        net = timm.create_model(
            "vit_tiny_patch16_224", in_chans=channels, img_size=size, patch_size=4, depth=2
        )
    return dict(net.state_dict())


def test_weights_are_taken_over_and_named_by_what_they_hold() -> None:
    need("timm")
    from safetensors.torch import save_file

    held = vit_weights(channels=3)
    save_file(held, "vit.safetensors")
    part = Part("vit_tiny", {**IMAGES.model.params, "weights": "vit.safetensors", "train": "head"})
    spec = IMAGES.replace(model=part).resolved
    name = spec.model.params["weights"]
    assert isinstance(name, str) and vault.KEPT_NAME.fullmatch(name) and spec.id != IMAGES.id
    Path("vit.safetensors").unlink()  # a copy is kept
    module = built(spec).built.net.module
    assert torch.equal(module.get_buffer("net.pos_embed"), held["pos_embed"])
    summed = held["patch_embed.proj.weight"].sum(1, keepdim=True)  # of gray images
    assert torch.equal(module.get_buffer("net.patch_embed.proj.weight"), summed)


def test_weights_of_another_network_are_refused() -> None:
    need("timm")
    from safetensors.torch import save_file

    save_file(vit_weights(channels=1, size=32), "other.safetensors")
    Path("broken.safetensors").write_bytes(b"no tensors")
    for file, words in (
        ("other", "pos_embed is 1×65×192 there and 1×17×192 in the network; size, patch and depth"),
        ("broken", "is no .safetensors file"),
    ):
        make = plugins.build(
            "models", "vit_tiny", {**IMAGES.model.params, "weights": f"{file}.safetensors"}
        )
        with pytest.raises(BadInput, match=words):
            make((1, 8, 8), 10)


def test_adapters_and_head_alone_travel_and_the_base_stays() -> None:
    need("transformers", "peft")
    experiment = built(TEXTS)
    net = experiment.built.net
    names = [slot.name for slot in net.layout]
    assert all(".lora_" in name or "classifier" in name for name in names)
    assert sum(".lora_" in name for name in names) == 1 * 2 * 2  # layers, query and value, A and B
    assert not net.vectorized  # products with constants
    assert net.head == "base.classifier"
    frozen = "base.bert.encoder.layer.0.attention.self.query.base_layer.weight"
    before = net.module.get_buffer(frozen).clone()
    while experiment.rounds_left:
        experiment.round()
    assert torch.equal(net.module.get_buffer(frozen), before)
    moved = experiment.state.params - net.params
    assert all(moved[slot.span].any() for slot in net.layout)
    first = losses(TEXTS)
    assert first == losses(TEXTS) and first[-1] < first[0]


CONFIG = {"vocab_size": 40, "num_labels": 4}
TYPES: dict[str, dict[str, int]] = {
    "Bert": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 20,
    },
    "DistilBert": {
        "dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": 20,
    },
    "Roberta": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 22,
    },
}


def save_base(kind: str, folder: str) -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**CONFIG, **TYPES[kind])
    with seeded(0, "tests", kind):
        base = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    base.save_pretrained(folder)
    return base.eval()


def lora(**params: Any) -> Callable[..., nn.Module]:
    make: Callable[..., nn.Module] = plugins.build("models", "lora_text", {"rank": 2, **params})
    return make


@pytest.mark.parametrize("kind", TYPES)
def test_a_base_from_a_folder_says_what_the_library_says(kind: str) -> None:
    """Adapters begin at 0, so the classifier is the base's own."""
    need("transformers", "peft")
    base = save_base(kind, "base")
    net = lora(path="base")((20,), 4)
    ids = torch.randint(2, 40, (3, 20), generator=torch.Generator().manual_seed(0))
    ids[1, 7:] = 0
    padding = base.config.pad_token_id
    # where padding is another id than 0 the two are exchanged
    theirs = torch.where(ids == 0, padding, ids)
    with torch.no_grad():
        expected = base(theirs, attention_mask=(ids != 0).long()).logits
        torch.testing.assert_close(net(ids), expected)
    assert torch.equal(net.train()(ids), net.eval()(ids))  # nothing is dropped
    assert bool(net(torch.zeros(2, 20, dtype=torch.int64)).isfinite().all())
    names = [name for name, _ in net.named_parameters()]
    assert sum(".lora_" in name for name in names) == 4
    assert all(".lora_" in name or "classifier" in name for name in names)
    other = lora(path="base")((20,), 9)
    assert other(ids).shape == (3, 9)
    with pytest.raises(BadInput, match="inputs have 21 tokens, the base takes 20 at most"):
        lora(path="base")((21,), 4)


def test_a_base_is_named_by_what_it_holds() -> None:
    need("transformers", "peft")
    save_base("Bert", "base")
    spec = TEXTS.replace(model=Part("lora_text", {"path": "base"})).resolved
    Path("base/README.md").write_text("no matter")
    assert TEXTS.replace(model=Part("lora_text", {"path": "base"})).id == spec.id
    config = Path("base/config.json")
    config.write_text(config.read_text().replace('"gelu"', '"relu"'))
    assert TEXTS.replace(model=Part("lora_text", {"path": "base"})).id != spec.id
    first = losses(spec.replace(dataset=Part("topics", {"samples": 300, "words": 39})))
    assert first[-1] < first[0]


def test_a_folder_of_something_else_is_refused() -> None:
    need("transformers", "peft")
    Path("base").mkdir()
    config = Path("base/config.json")
    for text, words in (
        ('{"model_type": "gpt2"}', "is of type 'gpt2'; known: bert, distilbert, roberta"),
        ('{"model_type": "no"}', "cannot be read"),
        ("{", "cannot be read"),
        ('{"model_type": "bert"}', "cannot be read"),  # and no weights
    ):
        config.write_text(text)
        vault._kept.cache_clear()
        with pytest.raises(BadInput, match=words) as caught:
            lora(path="base")((20,), 4)
        assert "\n" not in str(caught.value)
