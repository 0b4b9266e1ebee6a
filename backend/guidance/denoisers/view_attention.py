# SPDX-License-Identifier: GPL-3.0-or-later
"""Self-attention among the views of one object, as in MVDream (Shi et al. 2023): no parameters beyond the U-Net's own.

Rows of a batch are ordered by object, the views of one object next to each other. Every position of a view attends to
all positions of all views of its object; text and normalization stay each view's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import ModelError


class JoinedSelfAttention:
    """Attention processor of a transformer block: `inner` on states (n, positions, width) of `views` views as one.

    Cross-attention, which is given the text, is `inner`'s own.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        views: int = 1,
    ) -> Tensor:
        if views == 1 or encoder_hidden_states is not None:
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        n, positions, width = hidden_states.shape
        joined = hidden_states.reshape(n // views, views * positions, width)
        return self.inner(attn, joined, None, attention_mask, temb).reshape(n, positions, width)


class JoinedTextAttention:
    """Attention processor of a block that attends to its text and to itself at once (DeepFloyd IF's, the starter's).

    States (n, width, h, w) and text (n, tokens, text width): the keys of a position are those of its own view's text
    and of all positions of the `views` views of its object. With one view it is diffusers' `AttnAddedKVProcessor`.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        views: int = 1,
    ) -> Tensor:
        if attention_mask is not None or attn.only_cross_attention:
            raise ModelError(
                "the U-Net masks its attention or attends to text alone; allowed here is attention to text and image "
                "without a mask; choose another model"
            )
        n, width = hidden_states.shape[:2]
        states = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)  # (n, positions, width)
        text = attn.norm_encoder_hidden_states(encoder_hidden_states) if attn.norm_cross else encoder_hidden_states

        def of_all_views(values: Tensor) -> Tensor:
            joined = values.reshape(n // views, 1, -1, values.shape[-1]).expand(-1, views, -1, -1)
            return joined.reshape(n, -1, values.shape[-1])

        key = torch.cat([attn.add_k_proj(text), of_all_views(attn.to_k(states))], dim=1)
        value = torch.cat([attn.add_v_proj(text), of_all_views(attn.to_v(states))], dim=1)
        query, key, value = (
            rows.view(n, -1, attn.heads, rows.shape[-1] // attn.heads).transpose(1, 2)
            for rows in (attn.to_q(states), key, value)
        )
        found = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, -1, width)
        output = attn.to_out[1](attn.to_out[0](found))
        return output.transpose(1, 2).reshape(hidden_states.shape) + hidden_states


def join_views(unet: Any) -> None:
    """Let a U-Net's self-attention join views: `unet(..., cross_attention_kwargs={"views": n})`; without it, none."""
    processors = {}
    for name, inner in unet.attn_processors.items():
        attention = unet.get_submodule(name.removesuffix(".processor"))
        with_text = attention.added_kv_proj_dim is not None
        processors[name] = JoinedTextAttention() if with_text else JoinedSelfAttention(inner)
    unet.set_attn_processor(processors)
