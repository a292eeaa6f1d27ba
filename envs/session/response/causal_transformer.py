"""A transformer instead of a recurrent unit, for comparison: it has no state of fixed size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CausalTransformer(nn.Module):
    """A causal transformer with the interface of a recurrent unit: two layers, four heads.

    Args:
        width: of tokens, W.
        length: maximum number of tokens.
    """

    def __init__(self, width: int, length: int = 512) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Output at each token, shape (B, T, W), and None in place of a state."""
        length = tokens.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        return self.layers(tokens + self.position[:length], mask=later, is_causal=True), None
