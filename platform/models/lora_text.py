"""A text classifier of transformers with low-rank adapters: the base is frozen, adapters and head
are trained and sent.

W' = W + (α / r) B A  for the matrices W (h, h) of queries and values of each layer of attention,
which are constants; A (r, h) is drawn, B (h, r) begins at 0. The head that gives the logits is the
base's own kind, a linear layer on the first token's state or two of them.

Shapes: (N, L) int64 token ids, 0 is padding → (N, classes); 2 · r · h for each adapted matrix, and
those of the head.

Source: E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen, "LoRA:
Low-Rank Adaptation of Large Language Models", ICLR 2022, equation 3. Networks are those of the
library transformers, adapters those of peft, which the extra ``models`` brings.

Deviations: no dropout, neither of the base nor of the adapters. A document without a word is its
padding, of which the first token is looked at. Token ids beyond the base's vocabulary share rows
with others; ids are of use only where the dataset has the base's own, ``hf(tokenizer=…)``. A base
whose padding is another id than 0 has the two exchanged, here and there. Attention is written out.
Clients train one after another: the base is a constant, and bits of products with it may depend on
how many clients go through them at once.

Base: ``path`` is a folder with ``config.json`` and .safetensors files, as ``save_pretrained``
writes it, of a BERT, a DistilBERT or a RoBERTa; no hub is asked and no code from it is run. A spec
names it by the sha256 of these files, and copies are kept (docs/own_plugins.md). Where it is a
classifier of as many classes, its head is what training starts from; else the head is a new one.
Without ``path`` it is a BERT with random weights, for tests: its frozen part knows nothing.

Example:
>>> lora_text(rank=2, words=100, dim=16, layers=1).__name__
'build'
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from backstop.platform import vault
from backstop.platform.contract import Model
from backstop.platform.extras import need
from backstop.platform.params import BadInput, Content, Range
from backstop.platform.training.constants import freeze

VERSION = 1
KINDS = ("text",)
LIBRARIES = ("transformers", "peft")
WHERE = "model lora_text"
BASE = Content(("config.json", "*.safetensors", "*.safetensors.index.json"))
# type of the base → its matrices of queries and values
ADAPTED = {
    "bert": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "roberta": ["query", "value"],
}
HEADS = 2  # of attention, of a random base


def lora_text(
    *,
    path: Annotated[
        str | None,
        BASE,
        "folder of the base, config.json and .safetensors; none: a small one of random weights",
    ] = None,
    rank: Annotated[int, Range(1, 1024, log=True, search=(1, 64)), "columns of an adapter, r"] = 4,
    alpha: Annotated[
        float, Range(0, 1e4, low_open=True), "adapters are multiplied by alpha / rank"
    ] = 8.0,
    words: Annotated[int, Range(1, 10**7), "of a random base: token ids with a row each"] = 10000,
    dim: Annotated[
        int, Range(2, 4096, search=(16, 256)), "of a random base: numbers of a state, even"
    ] = 64,
    layers: Annotated[int, Range(1, 48, search=(1, 4)), "of a random base: layers"] = 2,
) -> Model:
    """A frozen text classifier with adapters. Raises BadInput for an odd ``dim``."""
    if dim % HEADS:
        raise BadInput(f"{WHERE}: dim={dim} is odd; a random base has {HEADS} heads of attention")

    def random_base(classes: int) -> Any:
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=words + 1,
            hidden_size=dim,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            intermediate_size=4 * dim,
            num_labels=classes,
            attn_implementation="eager",
        )
        return BertForSequenceClassification(config)

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        need(LIBRARIES, "models", WHERE)
        from peft import LoraConfig, inject_adapter_in_model

        if path is None:
            base = random_base(classes)
        else:
            with vault.as_folder(path, BASE, f"{WHERE}: path") as folder:
                base = _read(folder, classes, path)
        _check_length(base.config, shape[0])
        adapters = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=ADAPTED[base.config.model_type]
        )
        base.requires_grad_(False)
        inject_adapter_in_model(adapters, base)
        for name, parameter in base.named_parameters():
            of_base = name.startswith(f"{base.base_model_prefix}.") and ".lora_" not in name
            parameter.requires_grad_(not of_base)
        return _Classifier(freeze(base))

    return build


def _read(
    folder: Path,
    classes: int,
    given: str,
) -> Any:
    """The base in a folder. Raises BadInput where it is none."""
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    where = f"{WHERE}: path={given}"
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=classes)
        if config.model_type not in ADAPTED:
            raise BadInput(f"{where} is of type {config.model_type!r}; known: {', '.join(ADAPTED)}")
        return AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="eager",
        )
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise BadInput(f"{where} cannot be read: {type(error).__name__}: {line:.200}") from error


def _check_length(config: Any, length: int) -> None:
    padding = config.pad_token_id or 0
    # RoBERTa counts places from behind its padding's id
    most = config.max_position_embeddings - (padding + 1 if config.model_type == "roberta" else 0)
    if length > most:
        raise BadInput(f"{WHERE}: inputs have {length} tokens, the base takes {most} at most")


class _Classifier(nn.Module):
    """The base on token ids that 0 pads; it never drops out."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base.eval()
        self.padding: int = base.config.pad_token_id or 0
        self.words: int = base.config.vocab_size

    def train(self, mode: bool = True) -> _Classifier:  # noqa: ARG002
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        there = x != 0
        first = torch.arange(x.shape[1], device=x.device) == 0
        looked_at = (there | first)[:, None, None]  # (b, 1, 1, L)
        ids = torch.where(there, (x - 1) % (self.words - 1) + 1, 0)
        if self.padding:  # the two ids are exchanged
            swapped = torch.where(ids == 0, self.padding, ids)
            ids = torch.where(ids == self.padding, 0, swapped)
        mask = torch.where(looked_at, 0.0, torch.finfo(torch.float32).min)
        mask = mask.expand(-1, 1, x.shape[1], -1)  # of each place as of all
        scores: Tensor = self.base(input_ids=ids, attention_mask=mask).logits
        return scores
