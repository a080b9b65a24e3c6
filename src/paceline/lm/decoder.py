"""The decoder skeleton: embedding, layers of mixer and feed-forward, norm, tied head.

    x = sqrt(d) E[ids]
    x = x + mixer(norm(x))       or  x = mixer(x)  where the mixer is a whole layer (`Mixer.is_layer`)
    x = x + SwiGLU(norm(x))      where hidden > 0
    logits = E norm(x)

with E drawn at 1/sqrt(d): the stream starts at unit variance, and so do the logits. Which mixer each layer has is the
plan, so a hybrid is a list. Written once; methods are passed in.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.blocks.rmsnorm import RMSNorm
from paceline.blocks.swiglu import SwiGLU
from paceline.core.state import State
from paceline.mixers._contract import Flops, Mixer, MixerState


class Layer(nn.Module):
    """A mixer and a feed-forward, each with its norm and residual."""

    def __init__(self, mixer: Mixer, hidden: int) -> None:
        super().__init__()
        self.mixer = mixer
        self.mixer_norm = nn.Identity() if mixer.is_layer else RMSNorm(mixer.d_model)
        self.feed_forward = SwiGLU(mixer.d_model, hidden) if hidden else None
        self.feed_forward_norm = RMSNorm(mixer.d_model) if hidden else None

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The whole sequence at once."""
        return self._finish(x, self.mixer(self.mixer_norm(x)))

    def extend(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, MixerState]:
        """The next tokens after `state`."""
        mixed, after = self.mixer.extend(self.mixer_norm(x), dict(state))
        return self._finish(x, mixed), after

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = mixed if self.mixer.is_layer else x + mixed
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            x = x + self.feed_forward(self.feed_forward_norm(x))
        return x


class Decoder(nn.Module):
    """A causal language model over a plan of mixers. Implements `core.state.LM`.

    Args:
        vocab_size: number of tokens v.
        mixers: one per layer, all of one width d.
        hidden: width of the feed-forwards; 0 for none.
    """

    def __init__(self, vocab_size: int, mixers: Sequence[Mixer], hidden: int) -> None:
        super().__init__()
        self.vocab_size, self.d_model, self.hidden = vocab_size, mixers[0].d_model, hidden
        self.embedding = nn.Embedding(vocab_size, self.d_model)
        nn.init.normal_(self.embedding.weight, std=self.d_model**-0.5)
        self.layers = nn.ModuleList(Layer(mixer, hidden) for mixer in mixers)
        self.norm = RMSNorm(self.d_model)

    @property
    def stack(self) -> list[Layer]:
        """The layers, with their type."""
        return cast(list[Layer], list(self.layers))

    @property
    def mixers(self) -> list[Mixer]:
        """The plan, layer by layer."""
        return [layer.mixer for layer in self.stack]

    def forward(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of each next token, and the state after them."""
        hidden, after = self.extend(ids, state)
        return self._head(hidden), after

    def logits(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """The same logits from an empty past, without paying for a state: what training calls."""
        return self._head(self.hidden_states(ids))

    def extend(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t d"], State]:
        """What the head reads of each token, and the state after them."""
        state = self.initial_state(ids.shape[0]) if state is None else state
        read = state.to_read(ids)
        x, layers = self._embed(read), []
        for layer, past in zip(self.stack, state.layers, strict=True):
            x, after = layer.extend(x, past)
            layers.append(after)
        return self.norm(x[:, -ids.shape[1] :]), state.after(read, tuple(layers))

    def hidden_states(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """The same from an empty past."""
        x = self._embed(ids)
        for layer in self.stack:
            x = layer(x)
        return self.norm(x)

    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` sequences."""
        return State(tuple(mixer.initial_state(batch) for mixer in self.mixers), 0)

    def state_bytes(self, batch: int, length: int) -> int:
        """Declared bytes of the state after `length` tokens."""
        return sum(mixer.state_bytes(batch, length) for mixer in self.mixers)

    def flops(self, batch: int, length: int) -> Flops:
        """Forward operations; where they depend on data, at the last run's activation."""
        mixers = [mixer.flops(batch, length) for mixer in self.mixers]
        dense = 2.0 * batch * length * self.vocab_size * self.d_model
        dense += sum(layer.feed_forward.flops(batch, length) for layer in self.stack if layer.feed_forward is not None)
        return Flops(sum(f.products for f in mixers) + dense, sum(f.other for f in mixers))

    def meters(self) -> dict[str, float]:
        """The mixers' meters, as `activated.0` for layer 0, and so on."""
        return {f"{name}.{i}": value for i, m in enumerate(self.mixers) for name, value in m.meters().items()}

    def _embed(self, ids: Tensor) -> Tensor:
        return self.embedding(ids) * math.sqrt(self.d_model)

    def _head(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.embedding.weight)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
