"""Which of a network's layers the name of a hook means, as the libraries that train dictionaries call it."""

from __future__ import annotations

import re

from phosphene.errors import InputError, did_you_mean, printable
from phosphene.networks.network import Network

_BLOCK = re.compile(r"^(.*\.)?(blocks|layers?|resblocks|h|stages)\.(\d+)$")
_PARTS: dict[str, tuple[str, ...]] = {
    "hook_resid_post": ("",),
    "hook_mlp_out": ("mlp",),
    "hook_attn_out": ("attn", "attention", "self_attn", "self_attention"),
    "mlp.hook_post": ("mlp.act", "mlp.activation", "mlp.activation_fn", "mlp.gelu", "intermediate.intermediate_act_fn"),
    "mlp.hook_pre": ("mlp.fc1", "mlp.c_fc", "intermediate.dense"),
    "ln1.hook_normalized": ("norm1", "ln_1", "layer_norm1", "layernorm_before"),
    "ln2.hook_normalized": ("norm2", "ln_2", "layer_norm2", "layernorm_after"),
}


def hook_layer(hook: str, network: Network, origin: str) -> str:
    """The network's layer that a hook's name means: its own name, or TransformerLens's (blocks.9.hook_resid_post).

    `hook_resid_post` is a block's output, `hook_resid_pre` that of the block before, `hook_mlp_out` and `hook_attn_out`
    what is added to the residual stream, `mlp.hook_post` the MLP's activation.

    Raises:
        InputError: none or several are meant: the layer is asked for.
    """
    names = [layer.name for layer in network.layers]
    if hook in names:
        return hook
    ask = "expected --layer LAYER, or LAYER:sae:FILE:INDEX"
    match = re.fullmatch(r"(?:blocks|layers?)\.(-?\d{1,6})\.(.+)", hook)
    if match is None:
        near = did_you_mean(hook, names)
        raise InputError(f"{origin} is of {printable(hook, 100)!r}, which {network.name} has not: {ask}{near}")
    number, part = int(match[1]), match[2]
    from_the_end = number < 0
    if part == "hook_resid_pre":
        number, part = number - 1, "hook_resid_post"
    if part not in _PARTS:
        raise InputError(f"{origin} is of the hook {printable(hook, 100)!r}, of which no layer is known: {ask}")
    stacks: dict[str, list[int]] = {}
    for name in names:
        if found := _BLOCK.match(name):
            stacks.setdefault(f"{found[1] or ''}{found[2]}", []).append(int(found[3]))
    fitting = []
    for stack, numbers in stacks.items():
        place = number if not from_the_end else max(numbers) + 1 + number
        paths = (f"{stack}.{place}.{inner}".rstrip(".") for inner in _PARTS[part])
        fitting += [path for path in paths if path in names][:1]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(f"{origin} is of the hook {hook!r}, which may be {' or '.join(fitting[:3])}: {ask}")
    raise InputError(f"{origin} is of the hook {printable(hook, 100)!r}, and {network.name} has no such layer: {ask}")
