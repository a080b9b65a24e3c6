"""Linear attention with a fixed decay inside one process's part of a sequence, as products over chunks of 64 tokens.

    o_i = q_i S_i,   S_i = exp(-rate) S_(i-1) + k_i v_i^T,   S_0 = what the processes before hand over

Everything but S_0 is known before the others have spoken: `left` is what the part itself leaves behind, `inside` the
products within chunks. `outputs` needs S_0, which goes into the state before each chunk, so that no product is added.
Every exponent is an age: nothing overflows at any length.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CHUNK = 64


@dataclass(frozen=True)
class Part:
    """What a process computes of its tokens alone."""

    q: Float[Tensor, "b heads chunks c s"]
    k: Float[Tensor, "b heads chunks c s"]
    v: Float[Tensor, "b heads chunks c e"]
    rate: Float[Tensor, " heads"]
    before: Float[Tensor, "b heads chunks s e"]
    """The state before each chunk, from this part's own tokens."""
    left: Float[Tensor, "b heads s e"]
    """The state after the last token."""
    length: int

    def inside(self) -> Float[Tensor, "b heads chunks c e"]:
        """What tokens see within their chunk."""
        steps = torch.arange(self.q.shape[3], device=self.q.device)
        ages = steps.unsqueeze(1) - steps
        decay = torch.exp(-self.rate.view(-1, 1, 1) * ages.clamp(min=0)) * (ages >= 0)
        return (self.q @ self.k.transpose(3, 4) * decay.unsqueeze(1)) @ self.v

    def outputs(self, inside: Tensor, first: Float[Tensor, "b heads s e"]) -> Float[Tensor, "b heads t e"]:
        """All of it, from the state before the first token."""
        rate, chunk = self.rate.view(-1, 1, 1, 1), self.q.shape[3]
        steps = torch.arange(chunk, device=self.q.device).view(1, 1, -1, 1)
        starts = chunk * torch.arange(self.q.shape[2], device=self.q.device).view(1, -1, 1, 1)
        states = self.before + torch.exp(-rate * starts) * first.unsqueeze(2)
        through = torch.exp(-rate * (steps + 1)) * (self.q @ states)
        return (inside + through).flatten(2, 3)[:, :, : self.length]

    @torch.no_grad()
    def recalled(self, outputs: Tensor, first: Tensor) -> Tensor:
        """Of the energy of the first chunk's outputs, what came from the state before the first token."""
        some = min(self.q.shape[3], self.length)
        steps = torch.arange(some, device=outputs.device).view(1, -1, 1)
        old = (torch.exp(-self.rate.view(-1, 1, 1) * (steps + 1)) * (self.q[:, :, 0, :some] @ first)).float()
        energy = old.square().sum(), (outputs[:, :, :some].float() - old).square().sum()
        return energy[0] / (energy[0] + energy[1]).clamp(min=torch.finfo(torch.float32).tiny)


def part(q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None) -> Part:
    """The tokens (b, heads, t, .) of one process in chunks, and the states between them."""
    length = q.shape[2]
    chunk = min(CHUNK, length)
    rate = q.new_zeros(q.shape[1]) if rate is None else rate.to(q.dtype)
    q, k, v = (_fold(z, chunk) for z in (q, k, v))
    steps = torch.arange(chunk, device=q.device)
    sizes = torch.full((q.shape[2],), chunk, device=q.device)
    sizes[-1] = length - (q.shape[2] - 1) * chunk
    ages = (sizes.unsqueeze(1) - 1 - steps).clamp(min=0)  # (chunks, c): what is beyond the end is 0 anyway
    kept = torch.exp(-rate.view(-1, 1, 1) * ages).unsqueeze(-1)  # (heads, chunks, c, 1)
    added = (k * kept).transpose(3, 4) @ v
    fading = torch.exp(-rate.unsqueeze(1) * sizes)  # (heads, chunks)
    states = [torch.zeros_like(added[:, :, 0])]
    for index, piece in enumerate(added.unbind(2)):  # over chunks, not tokens
        states.append(fading[:, index].view(-1, 1, 1) * states[-1] + piece)
    return Part(q, k, v, rate, torch.stack(states[:-1], dim=2), states[-1], length)


def _fold(z: Tensor, chunk: int) -> Tensor:
    """(b, heads, t, s) -> (b, heads, chunks, c, s), with zeros after the end."""
    lacking = -z.shape[2] % chunk
    return (functional.pad(z, (0, 0, 0, lacking)) if lacking else z).contiguous().unflatten(2, (-1, chunk))


def naive_linear(q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None, causal: bool) -> Tensor:
    """The matrix of all scores."""
    scores = q @ k.transpose(2, 3)
    if causal:
        steps = torch.arange(q.shape[2], device=q.device)
        ages = steps.unsqueeze(1) - steps
        rate = q.new_zeros(q.shape[1]) if rate is None else rate
        scores = scores * torch.exp(-rate.view(-1, 1, 1) * ages.clamp(min=0)) * (ages >= 0)
    return scores @ v
