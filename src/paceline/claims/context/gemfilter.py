"""GemFilter on SmolLM2: does an early layer know which tenth of a prompt the answer needs?

Facts are hidden in 1,024 to 4,096 tokens of documentation or code, and the question ends the prompt, for GemFilter is
defined so: its last token chooses. SnapKV and H2O therefore see the question within the prompt as well; each keeps as
many tokens as GemFilter lets through, a tenth of the prompt. The sham lets through the last 32 tokens, so the question,
and others at random. Operations are those of reading the prompt.

Which layer chooses is a setting that the authors find for each model: 13 of 32, 19 of 40, 19 of 32. Here it is layer 21
of 30 (from 0), by a pilot of eight prompts on seeds 1003 to 1008: the answers through it took 0.4 bits a token, through
layer 18 0.8, through others between 1 and 6, through all before layer 14 as many as without the text. So less is saved
than where layer 13 of 32 chooses.
"""

from pathlib import Path

import torch
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._measured import Measured
from paceline.claims._pretrained import TINY, load
from paceline.claims._recall import shown
from paceline.claims._retrieval import Haystacks
from paceline.context._contract import Policy
from paceline.context._reader import Reader
from paceline.context.full import Full
from paceline.context.gemfilter import GemFilter
from paceline.context.h2o import H2O
from paceline.context.snapkv import SnapKV
from paceline.core.tolerances import close
from paceline.lm.huggingface.llama import Llama
from paceline.race.contestant import Event, Job, Outcome, Report

CLAIM = (
    "Of prompts of 1,024 to 4,096 tokens that end with a question about a hidden fact, the tenth that layer 21 of 30 "
    "points at answers better than the tenth that SnapKV keeps, which sees the question too, and by more than 1 bit "
    "per answer token better than what H2O keeps; it answers at most 0.33 bits worse than the whole prompt, a tenth of "
    "what it costs to guess a digit; and it takes more than a tenth fewer operations to read the prompt than SnapKV, "
    "and less than 0.15 of the full cache's bytes."
)
METHOD, FULL, SNAP, HEAVY, SHAM = "gemfilter", "full", "snapkv", "h2o", "gemfilter, random tokens"
LAYER, TAIL = 21, 32


class RandomTokens(GemFilter):
    """The sham: the end of the prompt, and any other tokens."""

    def choose(self, lm: Llama, ids: Tensor) -> Tensor:
        """Which of the prompt's tokens are kept."""
        early = ids.shape[1] - TAIL
        some = torch.rand(len(ids), early).topk(self.tokens - TAIL).indices
        last = torch.arange(early, ids.shape[1]).expand(len(ids), -1)
        return torch.cat((some.sort().values, last), dim=1)


def choose(how: str, lm: Llama, tokens: int) -> Policy | Reader:
    """What a contestant does."""
    kept, layer = tokens // 10, LAYER if lm.depth > LAYER else 1
    if how in (METHOD, SHAM):
        return (GemFilter if how == METHOD else RandomTokens)(layer, kept)
    return {FULL: Full(), SNAP: SnapKV(kept), HEAVY: H2O(kept, kept // 2)}[how]


def run(job: Job, how: str, report: Report) -> Outcome:
    """Measure one contestant."""
    return shown(job, lambda lm, tokens: choose(how, lm, tokens), report)


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    task = {
        "smoke": Haystacks(TINY, (1_024,), 1),
        "cpu": Haystacks("smollm2", (1_024, 2_048, 2_048, 4_096), 1),
        "gpu": Haystacks("smollm2", (2_048, 4_096, 6_144, 8_000), 1),
    }[budget]
    return Design(
        contestants=[Measured(name, run, name, Haystacks) for name in (METHOD, FULL, SNAP, HEAVY, SHAM)],
        events=[Event(task, 0, 134_515_008, 1)],
        seeds={"smoke": 1, "cpu": 12, "gpu": 64}[budget],
        bars=[
            Bar("recall", METHOD, SNAP),
            Bar("recall", METHOD, HEAVY, by=1.0),
            Bar("recall", METHOD, FULL, by=-0.33),
            Bar("recall", METHOD, SNAP, by=0.1, measure="flops"),
            Bar("recall", METHOD, FULL, by=0.85, measure="state_bytes"),
        ],
        shams=[Bar("recall", METHOD, SHAM)],
        meter="kept",
        limits="One model of 135 million parameters with 4-bit weights, in which the layer that knows the answer's "
        "place is the 22nd of 30, and prompts of at most 4,096 tokens: the paper's larger models choose at "
        "layers 13 to 19 of 32 or 40, from longer ones.",
    )


@torch.no_grad()
def faithful() -> bool:
    """Whether it keeps what the formula does, taken head by head on transformers' own layers, and reads just that."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    model = load(TINY).double()
    ids = (torch.arange(60).square() * 7 % 251)[None]
    layer, tokens, kernel = 1, 9, 3
    states = model(ids, output_hidden_states=True).hidden_states[layer]
    part = model.model.layers[layer]
    x = part.input_layernorm(states)
    q, k = (
        proj(x).unflatten(2, (-1, part.self_attn.head_dim)).transpose(1, 2)
        for proj in (part.self_attn.q_proj, part.self_attn.k_proj)
    )
    q, k = apply_rotary_pos_emb(q, k, *model.model.rotary_emb(states, torch.arange(60)[None]))
    scores = sum(k[0, head * k.shape[1] // q.shape[1]] @ q[0, head, -1] for head in range(q.shape[1])).tolist()
    padded = [0.0, *scores, 0.0]
    pooled = [sum(padded[i : i + kernel]) / kernel for i in range(60)]
    kept = sorted(sorted(range(60), key=lambda i: -pooled[i])[:tokens])
    way, lm = GemFilter(layer, tokens, kernel), Llama(model)
    logits, _ = way.prepare(lm)(ids, None)
    expected = model(ids[:, kept]).logits[:, -1:]
    same = close(logits, expected, torch.float32)  # transformers takes its norms in float32
    return same and way.choose(lm, ids).tolist() == [kept]
