"""The network: a transformer encoder with its norms first, whose states' mean is a package; and beside it a vote of
each token, whatever stands around it, which is what naive Bayes goes by."""

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from examples.text.classifier.data import LABELS
from examples.text.classifier.tokens import MOST_TOKENS, VOCABULARY_SIZE

WIDTH, LAYERS, HEADS = 128, 2, 4


class Layer(nn.Module):  # type: ignore[misc, unused-ignore]
    """Attention, and then a network of each token's own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mixed, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, states: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """States [rows, tokens, WIDTH]; `seen` [rows, 1, 1, tokens] says what is no padding."""
        rows, tokens, _ = states.shape
        heads = self.mixed(self.attention_norm(states)).view(rows, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=seen)
        states = states + self.out(attended.transpose(1, 2).reshape(rows, tokens, WIDTH))
        states = states + self.down(gelu(self.up(self.norm(states))))
        return states


class Network(nn.Module):  # type: ignore[misc, unused-ignore]
    """`input_ids` and `attention_mask` [rows, tokens], integers, to logits [rows, labels]."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY_SIZE, WIDTH), nn.Embedding(MOST_TOKENS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(LABELS))
        self.votes = nn.Embedding(VOCABULARY_SIZE, len(LABELS))
        nn.init.zeros_(self.votes.weight)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = self.tokens(input_ids) + self.positions(places)
        seen = attention_mask.bool()
        for layer in self.layers:
            states = layer(states, seen[:, None, None])
        weights = attention_mask.to(states.dtype).unsqueeze(-1)
        tokens = weights.sum(1).clamp(min=1)
        mean = (self.norm(states) * weights).sum(1) / tokens
        votes = (self.votes(input_ids) * weights).sum(1) / tokens.sqrt()
        logits: torch.Tensor = self.head(mean) + votes
        return logits


def parameters(network: nn.Module) -> int:
    """The number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def load(path: Path) -> Network:
    """The network of the weights at `path`, ready to be evaluated."""
    network = Network()
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    network.eval()
    return network
