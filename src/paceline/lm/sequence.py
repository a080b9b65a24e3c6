"""A decoder whose sequences are longer than one device holds: each process has an equal part of the tokens of each row.

All but the mixers treat each token by itself, so only these talk: lightning and RetNet through LASP-2, attention by a
gathering of keys and values. `shard_sequence` rewrites a decoder's mixers in place, under the same parameters and
names; `Lengthwise` trains it. With the loss of a process summed over its own tokens, the sum of the processes'
gradients is the gradient of one process:

    link = Link()
    shard_sequence(model, link)
    model.logits(link.part(ids))        # this process's part of the logits
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from paceline.blocks.rotary import rotate
from paceline.core.errors import PacelineError
from paceline.data._contract import Batch
from paceline.lm.decoder import Decoder
from paceline.lm.distributed import PATIENCE, Replicated
from paceline.mixers._contract import Flops, Mixer
from paceline.mixers.attention import Attention
from paceline.mixers.lightning import Lightning
from paceline.mixers.retnet import RetNet
from paceline.parallel._contract import SequenceParallel
from paceline.parallel._link import Link
from paceline.parallel.gather_attention import GatherAttention
from paceline.parallel.lasp2 import LASP2

Make = Callable[[Link], SequenceParallel]


def shard_sequence(model: Decoder, link: Link, linear: Make = LASP2, softmax: Make = GatherAttention) -> None:
    """Let a decoder's `forward` and `logits` read this process's part of each sequence, in place.

    Reading from a state (`extend`, `generate`) stays what it was, in one process.

    Args:
        model: the same weights in every process.
        link: the processes.
        linear: how linear mixers share their states; `LASP` is another.
        softmax: how attention shares keys and values; `Ring` is another.

    Raises:
        PacelineError: a mixer or a feed-forward of another kind. Nothing is changed then.
    """
    ways = [_way(mixer) for mixer in model.mixers]
    if any(hasattr(module, "auxiliary_loss") for layer in model.stack for module in layer.modules()):
        raise PacelineError(
            "A part of this model has a loss over all tokens of a step, which no process sees: divide only models "
            "with swiglu."
        )
    for mixer, (forward, is_linear) in zip(model.mixers, ways, strict=True):
        vars(mixer)["forward"] = partial(forward, mixer, (linear if is_linear else softmax)(link))
    vars(model)["flops"] = partial(_flops, model, link.size)


def unshard_sequence(model: Decoder) -> None:
    """The decoder of one process again."""
    for part in (model, *model.mixers):
        for name in ("forward", "flops"):
            vars(part).pop(name, None)


class Lengthwise(Replicated):
    """A training run (`lm.distributed`) that divides sequences, not batches: every process has a part of every row."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        super().__init__(rank, size, device)
        group = distributed.new_group(timeout=PATIENCE)  # of its own: DDP speaks in the other meanwhile
        self.link = Link(group, PATIENCE.total_seconds())

    def fewest(self, batch: int) -> int:
        """All of them."""
        return batch

    def rows(self, batch: Batch) -> Batch:
        """This process's tokens of each row.

        Raises:
            PacelineError: the length does not divide.
        """
        return Batch(*(self.link.part(x).contiguous().to(self.device) for x in (batch.ids, batch.targets)))

    def adopt(self, model: Decoder) -> Decoder:
        """The model, with mixers that talk."""
        shard_sequence(model, self.link)
        return super().adopt(model)

    def release(self, trained: Decoder, model: Decoder) -> None:
        """As it was."""
        super().release(trained, model)
        unshard_sequence(model)


def _way(mixer: Mixer) -> tuple[Callable[..., Tensor], bool]:
    """How a mixer reads a part, and whether it is linear attention."""
    if isinstance(mixer, Lightning):
        return _lightning, True
    if isinstance(mixer, RetNet):
        return _retnet, True
    if isinstance(mixer, Attention) and mixer.window is None:
        return _attention, False
    name = "attention with a window" if isinstance(mixer, Attention) else type(mixer).__name__
    raise PacelineError(
        f"A sequence cannot be divided through {name}: take a model of lightning, retnet or attention without a window."
    )


def _lightning(mixer: Lightning, how: SequenceParallel, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    q, k, v, gate = mixer._project(x)
    return mixer._merge(how(q, k, v, mixer.rate), gate)


def _retnet(mixer: RetNet, how: SequenceParallel, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    """Positions and sums are those of the whole sequence, in double precision before they are rounded."""
    q, k, v = mixer.projections(x)
    rate = mixer.rate().double()
    positions = how.link.rank * x.shape[1] + torch.arange(x.shape[1], device=x.device, dtype=torch.float64)
    theta = 10_000.0 ** -torch.linspace(0, 1, mixer.key_width // 2, device=x.device, dtype=torch.float64)
    angles = positions.unsqueeze(1) * theta
    turns = torch.polar(torch.ones_like(angles), angles)
    if x.dtype != torch.float64:
        turns = turns.to(torch.complex64)
    o = how(rotate(q, turns), rotate(k, turns), v, rate.to(q.dtype))
    m = torch.expm1(-rate.unsqueeze(1) * (positions + 1)) / torch.expm1(-rate.unsqueeze(1))
    return mixer.read(x, o * m.rsqrt().unsqueeze(-1).to(o.dtype))


def _attention(mixer: Attention, how: SequenceParallel, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    q, k, v = mixer._project(x, torch.full((x.shape[0],), how.link.rank * x.shape[1], device=x.device))
    return mixer._merge(how(q, k, v))


def _flops(model: Decoder, size: int, batch: int, length: int) -> Flops:
    """Of one of the processes, over a whole length; attention's are not the same everywhere, this is their mean."""
    whole = Decoder.flops(model, batch, length)
    return Flops(whole.products / size, whole.other / size)
