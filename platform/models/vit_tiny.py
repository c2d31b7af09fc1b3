"""Vision transformer, the tiny one, as timm builds it: patches of an image as words of a sentence,
from random weights or from a file of them, all of it trained or a part.

An image is scaled to ``size`` × ``size`` and cut into squares of ``patch`` pixels; each becomes a
vector of 192 numbers, z_0 = [class; x_1 E; …; x_n E] + E_pos, and goes through ``depth`` blocks

z'_l = MSA(LN(z_{l-1})) + z_{l-1},  z_l = MLP(LN(z'_l)) + z'_l,  f(x) = W LN(z_L)_class + b

with three heads of attention. ``train`` says what is trained and sent: all; the last block, the
norm after it and the head; all norms and the head; or the head alone. The rest is a constant.

Shapes: (N, 1 or 3, H, W) → (N, classes); 5,524,416 parameters and 193 · classes of the head with
three channels and the defaults.

Source: A. Dosovitskiy, L. Beyer, A. Kolesnikov, D. Weissenborn, X. Zhai, T. Unterthiner, M.
Dehghani, M. Minderer, G. Heigold, S. Gelly, J. Uszkoreit, N. Houlsby, "An Image is Worth 16x16
Words: Transformers for Image Recognition at Scale", ICLR 2021, equations 1 to 4; the tiny size: H.
Touvron, M. Cord, M. Douze, F. Massa, A. Sablayrolles, H. Jégou, "Training Data-efficient Image
Transformers & Distillation through Attention", ICML 2021, table 1. The network is
``vit_tiny_patch16_224`` of R. Wightman's timm, which the extra ``models`` brings.

Deviations: the platform centers and scales images by mean and deviation of the dataset, published
weights mostly expect 0.5 and 0.5. Images are scaled bilinearly within the network, so that a
trigger is put on the image as the dataset has it. Attention is written out, softmax and products,
where timm takes a fused step, which has no batching rule. Of weights for three channels an image of
one takes the sum over them, as timm does. The head is always a new one. On a CPU it trains client
by client, because it begins with a convolution; with a part frozen everywhere, because bits of
products with a constant may depend on how many clients go through them at once.

Weights: ``weights`` is a .safetensors file of timm's names, such as the ``model.safetensors`` that
goes with the model on its hub; nothing is asked of a hub. A spec names it by the sha256 of what it
holds, and a copy is kept (docs/own_plugins.md).

Example:
>>> vit_tiny(size=32, patch=8, depth=2, train="head").__name__
'build'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from backstop.platform import vault
from backstop.platform.contract import Model
from backstop.platform.extras import need
from backstop.platform.params import BadInput, Content, Range
from backstop.platform.training.constants import freeze

VERSION = 1
KINDS = ("image",)
LIBRARIES = ("timm",)
NAME = "vit_tiny_patch16_224"
WHERE = "model vit_tiny"
EMBEDDING = "patch_embed.proj.weight"
# what is trained, by the beginnings of the names of parameters
TRAINED = {
    "last": ("norm.", "head."),
    "norms": ("norm.", "head."),
    "head": ("head.",),
}


def vit_tiny(
    *,
    weights: Annotated[
        str | None,
        Content(),
        "path of a .safetensors file of timm's weights; none: random initial values",
    ] = None,
    train: Annotated[
        Literal["all", "last", "norms", "head"],
        "what is trained and sent; last: the last block and the head; the rest is a constant",
    ] = "all",
    size: Annotated[
        int, Range(8, 1024, search=(32, 224)), "pixels of each side that images are scaled to"
    ] = 224,
    patch: Annotated[int, Range(2, 64, search=(4, 16)), "pixels of each side of a patch"] = 16,
    depth: Annotated[int, Range(1, 48, search=(2, 12)), "blocks"] = 12,
) -> Model:
    """A tiny vision transformer. Raises BadInput where patches do not fill an image."""
    if size % patch:
        raise BadInput(f"{WHERE}: size={size} is no multiple of patch={patch}")

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        need(LIBRARIES, "models", WHERE)
        import timm

        net = timm.create_model(
            NAME,
            pretrained=False,
            num_classes=classes,
            in_chans=shape[0],
            img_size=size,
            patch_size=patch,
            depth=depth,
        )
        for block in net.blocks:
            block.attn.fused_attn = False
        if weights is not None:
            _load(net, weights)
        _freeze_all_but(net, train)
        return _Scaled(freeze(net), size)

    return build


class _Scaled(nn.Module):
    """Images scaled to what the network takes."""

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear")
        scores: Tensor = self.net(x)
        return scores


def _load(net: nn.Module, weights: str) -> None:
    """Take over all of a file but the head. Raises BadInput where it is not of this network."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    where = f"{WHERE}: weights"
    try:
        held = load(vault.read_kept(weights, where))
    except SafetensorError as error:
        raise BadInput(f"{where}={weights} is no .safetensors file: {error}") from None
    known = {name: tensor for name, tensor in held.items() if not name.startswith("head.")}
    own = {name: tensor for name, tensor in net.state_dict().items() if not _of_head(name)}
    if EMBEDDING in known and EMBEDDING in own and own[EMBEDDING].shape[1] == 1:
        known[EMBEDDING] = known[EMBEDDING].sum(1, keepdim=True)
    _check_same(own, known, f"{where}={weights}")
    net.load_state_dict(known, strict=False)


def _of_head(name: str) -> bool:
    return name.startswith("head.")


def _check_same(
    own: Mapping[str, Tensor],
    known: Mapping[str, Tensor],
    where: str,
) -> None:
    for name in sorted(own.keys() | known.keys()):
        ours, theirs = (_sides(tensors.get(name)) for tensors in (own, known))
        if ours != theirs:
            raise BadInput(
                f"{where}: {name} is {theirs} there and {ours} in the network; size, patch and"
                " depth have to be those of the weights"
            )


def _sides(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "×".join(map(str, tensor.shape))


def _freeze_all_but(net: Any, train: str) -> None:
    if train == "all":
        return
    trained = TRAINED[train]
    if train == "last":
        trained += (f"blocks.{len(net.blocks) - 1}.",)
    for name, parameter in net.named_parameters():
        of_norm = train == "norms" and ".norm" in name
        parameter.requires_grad_(name.startswith(trained) or of_norm)
