"""The networks of docs/own_plugins.md, tiny and random: they need the extra ``models``, which the
environment of the other tests does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from backstop.platform import loose
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.seeds import seeded
from backstop.platform.specs.part import parse_part, to_chain
from tests.conftest import forget

PAGE = Path(__file__).parents[1] / "docs" / "own_plugins.md"
SMALL = Spec(
    clients=4,
    per_round=3,
    malicious=0.25,
    alpha=10.0,
    rounds=3,
    batch=32,
    root_size=20,
    optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}),
    defense=to_chain("norm_clip(norm=2)+median", "defense"),
)
BERT = {
    "vocab_size": 3000,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


@pytest.fixture(autouse=True)
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder with the page's file in it."""
    for name in ("timm", "peft", "transformers"):
        pytest.importorskip(name, exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loose, "FILES", {})
    _, _, rest = PAGE.read_text().partition("`pretrained.py`:\n\n```python\n")
    code, _, _ = rest.partition("```")
    assert "def vit(" in code and "def lora(" in code
    Path("pretrained.py").write_text(code)
    yield
    forget()


def bert() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    with seeded(0, "tests", "bert"):
        BertForSequenceClassification(BertConfig(**BERT)).save_pretrained("bert")


def losses(spec: Spec) -> list[float]:
    return [record.metrics["round/train_loss"] for record in run(spec)]


def test_a_vision_transformer_trains_and_is_repeated() -> None:
    model = parse_part("pretrained.py:vit(size=32, patch=8, depth=2)")
    spec = SMALL.replace(model=model, attack=to_chain("badnets", "attack")).resolved
    first = losses(spec)
    assert first == losses(spec) and first[-1] < first[0]


def test_of_a_frozen_transformer_the_head_alone_travels() -> None:
    import timm
    from safetensors.torch import save_file

    with seeded(0, "tests", "vit"):
        net = timm.create_model(
            "vit_tiny_patch16_224", in_chans=1, img_size=32, patch_size=8, depth=2, num_classes=5
        )
    save_file(net.state_dict(), "vit.safetensors")
    text = "pretrained.py:vit(size=32, patch=8, depth=2, weights=vit.safetensors, train=head)"
    spec = SMALL.replace(model=parse_part(text)).resolved
    built = Experiment(spec, Path(), "cpu").built
    assert [slot.shape for slot in built.net.layout] == [(10, 192), (10,)]
    base = built.net.module.get_buffer("net.blocks.0.attn.qkv.weight")
    assert torch.equal(base, net.blocks[0].attn.qkv.weight)
    first = losses(spec)
    assert first[-1] < first[0]


# peft asks for it by the name that transformers is about to drop
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_of_a_frozen_bert_adapters_and_head_travel() -> None:
    bert()
    spec = SMALL.replace(
        dataset=Part("topics", {"samples": 300}),
        model=parse_part("pretrained.py:lora(rank=2)"),
        attack=to_chain("phrase(share=0.5)", "attack"),
        optimizer=Part("adam", {"lr": 0.01}),
    ).resolved
    built = Experiment(spec, Path(), "cpu").built
    names = [slot.name for slot in built.net.layout]
    assert names and all("lora_" in name or "classifier" in name for name in names)
    assert sum("lora_" in name for name in names) == 2 * 2 * 2  # layers, query and value, A and B
    first = losses(spec)
    assert first == losses(spec) and first[-1] < first[0]
