"""The decoder skeleton: embedding, layers of mixer and feed-forward, norm, tied head.

    x = sqrt(d) E[ids]
    x = x + mixer(norm(x))       or  x = mixer(x)  where the mixer is a whole layer (`Mixer.is_layer`)
    x = x + SwiGLU(norm(x))      where hidden > 0
    logits = E norm(x)

with E drawn at 1/sqrt(d): the stream starts at unit variance, and so do the logits. Which mixer each layer has is the
plan, so a hybrid is a list; another feed-forward may stand for SwiGLU. Written once; methods are passed in.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.blocks.rmsnorm import RMSNorm
from paceline.blocks.swiglu import SwiGLU
from paceline.core.errors import PacelineError
from paceline.core.state import State
from paceline.mixers._contract import Flops, Mixer, MixerState


class FeedForward(Protocol):
    """What a layer asks of its feed-forward, besides (b, t, d) -> (b, t, d)."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Each token on its own."""
        ...

    def flops(self, batch: int, length: int) -> float:
        """Forward operations of the matrix products."""
        ...


MakeFeedForward = Callable[[int, int], nn.Module]
"""From (d_model, hidden) to a `FeedForward`."""


class Layer(nn.Module):
    """A mixer and a feed-forward, each with its norm and residual."""

    def __init__(self, mixer: Mixer, hidden: int, feed_forward: MakeFeedForward = SwiGLU) -> None:
        super().__init__()
        self.mixer = mixer
        self.mixer_norm = nn.Identity() if mixer.is_layer else RMSNorm(mixer.d_model)
        self.feed_forward = feed_forward(mixer.d_model, hidden) if hidden else None
        self.feed_forward_norm = RMSNorm(mixer.d_model) if hidden else None

    def forward(self, x: Float[Tensor, "b t d"], prompt: int = 0) -> Float[Tensor, "b t d"]:
        """The whole sequence at once; its first `prompt` tokens are given as a whole."""
        return self._finish(x, self.mixer.after_prompt(self.mixer_norm(x), prompt))

    def read_prompt(self, x: Tensor) -> tuple[Tensor, MixerState]:
        """A whole prompt, and the state after it."""
        mixed, after = self.mixer.read_prompt(self.mixer_norm(x))
        return self._finish(x, mixed), after

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
        feed_forward: makes them.

    Raises:
        PacelineError: a mixer reads both ways.
    """

    reads_both_ways = False

    def __init__(
        self, vocab_size: int, mixers: Sequence[Mixer], hidden: int, feed_forward: MakeFeedForward = SwiGLU
    ) -> None:
        super().__init__()
        for mixer in mixers:
            if not (mixer.causal or self.reads_both_ways):
                raise PacelineError(
                    f"{type(mixer).__name__} with causal=False sees later tokens: it fits an encoder, not a decoder."
                )
        self.vocab_size, self.d_model, self.hidden = vocab_size, mixers[0].d_model, hidden
        self.embedding = nn.Embedding(vocab_size, self.d_model)
        nn.init.normal_(self.embedding.weight, std=self.d_model**-0.5)
        self.layers = nn.ModuleList(Layer(mixer, hidden, feed_forward) for mixer in mixers)
        self.norm = RMSNorm(self.d_model)
        self._kind: tuple[list[Mixer], str] | None = None

    @property
    def stack(self) -> list[Layer]:
        """The layers, with their type."""
        return cast(list[Layer], list(self.layers))

    @property
    def looks_ahead(self) -> bool:
        """Whether a layer reads a prompt both ways, so that `read_prompt` differs from `extend`."""
        return any(mixer.looks_ahead for mixer in self.mixers)

    @property
    def mixers(self) -> list[Mixer]:
        """The plan, layer by layer."""
        return [layer.mixer for layer in self.stack]

    @property
    def kind(self) -> str:
        """The plan with its sizes, as states are marked with it."""
        mixers = self.mixers
        if self._kind is None or self._kind[0] != mixers:  # a layer's mixer may be replaced
            self._kind = mixers, repr([(type(m).__name__, _sizes(m)) for m in mixers])
        return self._kind[1]

    def forward(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of each next token, and the state after them."""
        hidden, after = self.extend(ids, state)
        return self._head(hidden), after

    def logits(self, ids: Int[Tensor, "b t"], prompt: int = 0) -> Float[Tensor, "b t v"]:
        """The same logits from an empty past, without paying for a state: what training calls.

        Args:
            ids: whole sequences.
            prompt: how many of their first tokens are given as a whole, for mixers that look ahead in them.
        """
        return self._head(self.hidden_states(ids, prompt))

    def read_prompt(self, ids: Int[Tensor, "b t"]) -> tuple[Float[Tensor, "b t v"], State]:
        """A whole prompt from an empty past: the logits after each token, and the state to continue from."""
        x, layers = self._embed(ids), []
        for layer in self.stack:
            x, after = layer.read_prompt(x)
            layers.append(after)
        return self._head(self.norm(x)), self.initial_state(len(ids)).after(ids, tuple(layers))

    def extend(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t d"], State]:
        """What the head reads of each token, and the state after them."""
        state = self.initial_state(ids.shape[0]) if state is None else state
        state.check(self.kind, ids)
        read = state.to_read(ids)
        x, layers = self._embed(read), []
        for layer, past in zip(self.stack, state.layers, strict=True):
            x, after = layer.extend(x, past)
            layers.append(after)
        return self.norm(x[:, -ids.shape[1] :]), state.after(read, tuple(layers))

    def hidden_states(self, ids: Int[Tensor, "b t"], prompt: int = 0) -> Float[Tensor, "b t d"]:
        """The same from an empty past; `prompt` as in `logits`."""
        x = self._embed(ids)
        for layer in self.stack:
            x = layer(x, prompt)
        return self.norm(x)

    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` sequences."""
        return State(tuple(mixer.initial_state(batch) for mixer in self.mixers), 0, of=self.kind)

    def state_bytes(self, batch: int, length: int) -> int:
        """Declared bytes of the state after `length` tokens."""
        return sum(mixer.state_bytes(batch, length) for mixer in self.mixers)

    def flops(self, batch: int, length: int) -> Flops:
        """Forward operations; where they depend on data, at the last run's activation."""
        mixers = [mixer.flops(batch, length) for mixer in self.mixers]
        dense = 2.0 * batch * length * self.vocab_size * self.d_model
        parts = [cast(FeedForward, layer.feed_forward) for layer in self.stack if layer.feed_forward is not None]
        dense += sum(part.flops(batch, length) for part in parts)
        return Flops(sum(f.products for f in mixers) + dense, sum(f.other for f in mixers))

    def meters(self) -> dict[str, float]:
        """The mixers' and feed-forwards' meters, as `activated.0` for layer 0, and so on."""
        read: dict[str, float] = {}
        for index, layer in enumerate(self.stack):
            for part in (layer.mixer, layer.feed_forward):
                told = part.meters() if hasattr(part, "meters") else {}  # type: ignore[union-attr, operator]
                read |= {f"{name}.{index}": value for name, value in told.items()}
        return read

    def traces(self) -> dict[int, Float[Tensor, "b t"]]:
        """By layer, the gates of the last run, of layers that choose tokens."""
        return {i: gates for i, mixer in enumerate(self.mixers) if (gates := mixer.trace()) is not None}

    def begin_step(self) -> None:
        """Tell the parts that an optimizer step begins: those that count over its passes begin anew."""
        for module in self.modules():
            if module is not self and callable(begin := getattr(module, "begin_step", None)):
                begin()

    def auxiliary_loss(self) -> Tensor | None:
        """What the parts want to be small besides the task's loss, for their last run; None where they want nothing."""
        parts = [module for module in self.modules() if module is not self and hasattr(module, "auxiliary_loss")]
        losses: list[Tensor] = [part.auxiliary_loss() for part in parts]  # type: ignore[operator]
        return torch.stack(losses).sum() if losses else None

    def _embed(self, ids: Tensor) -> Tensor:
        return self.embedding(ids) * math.sqrt(self.d_model)

    def _head(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.embedding.weight)


def _sizes(mixer: Mixer) -> list[tuple[str, int]]:
    return sorted((k, v) for k, v in vars(mixer).items() if type(v) is int and not k.startswith("_"))


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
