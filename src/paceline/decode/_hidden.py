"""What a model's layers say of each token, seen from outside by hooks: the model itself is called as always.

`decode` knows no model by name, so a model is recognised by what it offers: Paceline's `Decoder` (`stack`, `norm`,
`embedding`), the lean `Llama` (`embed`, `layers`, `out`), and Hugging Face models (`model`, with output embeddings).
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.state import LM, State

Layers = list[Float[Tensor, "b t d"]]
"""The stream before each layer, the embedding first; last what the head reads, after the final norm."""


class Seen:
    """A model whose layers can be seen.

    Args:
        lm: the model.
        asks: who wants to see them, for the refusal.

    Attributes:
        head: logits (b, t, v) of a stream (b, t, d), with no norm before it.
        matrix: the head's, (v, d).
        depth: layers.

    Raises:
        PacelineError: it shows none.
    """

    def __init__(self, lm: LM, asks: str) -> None:
        self.lm = lm
        self.head: Callable[[Tensor], Tensor]
        model: Any = lm
        inner = getattr(lm, "model", None)
        if getattr(lm, "looks_ahead", False):
            raise PacelineError(
                f"{asks} sees a prompt token by token, and this model reads it as a whole: take another."
            )
        if hasattr(lm, "stack") and hasattr(lm, "norm") and hasattr(lm, "embedding"):
            self.depth, self._see = len(model.stack), self._decoder
            self.matrix: Tensor = model.embedding.weight
            self.head = lambda x: functional.linear(x, self.matrix)
        elif hasattr(lm, "embed") and hasattr(lm, "layers") and hasattr(lm, "out"):
            self.depth, self._see, self.head = len(model.layers), self._llama, model.out
            self.matrix = model.out.weight
        elif inner is not None and callable(getattr(inner, "get_output_embeddings", None)):
            self.depth, self._see = inner.config.get_text_config().num_hidden_layers, self._foreign
            self.head = inner.get_output_embeddings()
            self.matrix = inner.get_output_embeddings().weight
        else:
            raise PacelineError(
                f"{asks} needs to see a model's layers, and {type(lm).__name__} shows none: give the model itself, "
                "not a combination or a table."
            )

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Tensor, Layers, State]:
        """What the model returns, and between that its layers' streams, of `ids` alone."""
        with ExitStack() as hooks:
            layers = self._see(hooks, ids)
            logits, state = self.lm(ids, state)
        return logits, layers(), state

    def _decoder(self, hooks: ExitStack, ids: Tensor) -> Callable[[], Layers]:
        model: Any = self.lm
        before = [_inputs(hooks, layer.mixer_norm) for layer in model.stack]
        last = _outputs(hooks, model.norm)
        return lambda: [_end(calls, ids) for calls in (*before, last)]

    def _llama(self, hooks: ExitStack, ids: Tensor) -> Callable[[], Layers]:
        model: Any = self.lm
        added = [(_outputs(hooks, layer.o), _outputs(hooks, layer.down)) for layer in model.layers]
        last = _inputs(hooks, model.out)

        def layers() -> Layers:
            streams = [model.embed(ids)]
            for mixed, fed in added:
                streams.append(streams[-1] + _end(mixed, ids) + _end(fed, ids))
            return [*streams[:-1], _end(last, ids)]

        return layers

    def _foreign(self, hooks: ExitStack, ids: Tensor) -> Callable[[], Layers]:
        model, told = self.lm.model, []  # type: ignore[attr-defined]

        def ask(module: nn.Module, args: tuple, given: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            return args, {**given, "output_hidden_states": True}

        def note(module: nn.Module, args: tuple, out: Any) -> None:
            told.append(out.hidden_states)

        hooks.enter_context(model.register_forward_pre_hook(ask, with_kwargs=True))
        hooks.enter_context(model.register_forward_hook(note))
        return lambda: [_end(list(pieces), ids) for pieces in zip(*told, strict=True)]


def _inputs(hooks: ExitStack, module: nn.Module) -> list[Tensor]:
    calls: list[Tensor] = []

    def note(module: nn.Module, args: tuple) -> None:
        calls.append(args[0])

    hooks.enter_context(module.register_forward_pre_hook(note))
    return calls


def _outputs(hooks: ExitStack, module: nn.Module) -> list[Tensor]:
    calls: list[Tensor] = []

    def note(module: nn.Module, args: tuple, out: Tensor) -> None:
        calls.append(out)

    hooks.enter_context(module.register_forward_hook(note))
    return calls


def _end(calls: list[Tensor], ids: Tensor) -> Tensor:
    """Of all that was read, what is of `ids`: tokens that were taken back may have been read anew before them."""
    return torch.cat(calls, dim=1)[:, -ids.shape[1] :]
