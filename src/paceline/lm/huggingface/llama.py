"""Hugging Face models of the Llama kind, made lean for decoding: `logits, state = Llama(model)(ids, state)`.

    x = E[ids]
    x = x + O attend(rope(Q norm(x)), rope(K norm(x)), V norm(x))
    x = x + D (silu(G norm(x)) * (U norm(x)))
    logits = H norm(x)

The same numbers as the original up to rounding, for Llama, Mistral, Qwen 2 and Qwen 3. A step of one token costs
little more than reading the weights once: queries, keys and values are one product, gate and up another, and the cache
grows in place (`core/growing.py`). How attention remembers is a policy (`context/`), full by default.
"""

import copy
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.context._contract import Place, Policy
from paceline.context.full import Full
from paceline.core.errors import PacelineError
from paceline.core.growing import Growing
from paceline.core.stacked import followed
from paceline.core.state import State

KINDS = ("llama", "mistral", "qwen2", "qwen3")
PIECE = 1024
"""Tokens of padded prompts that are read at a time."""
ROPES = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles depend on the position alone, not on the length."""


class Llama(nn.Module):
    """A Llama-like causal LM under `core.state.LM`, with its weights copied.

    Args:
        model: of transformers, such as `LlamaForCausalLM`.
        policy: how attention remembers. Default: everything.

    Raises:
        PacelineError: it is another kind of model, or one that attends in another way.
    """

    def __init__(self, model: Any, policy: Policy | None = None) -> None:
        super().__init__()
        refuse(model)
        self.policy: Policy = Full() if policy is None else policy
        config = model.config
        self.vocab_size: int = config.vocab_size
        self.longest: int = config.max_position_embeddings
        self.heads: int = config.num_attention_heads
        self.groups: int = config.num_key_value_heads
        self.width: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps: float = config.rms_norm_eps
        self.embedding = model.model.embed_tokens.weight.detach()
        self.layers = nn.ModuleList(_Layer(layer) for layer in model.model.layers)
        self.norm = model.model.norm.weight.detach()
        self.out = _joined(model.lm_head)
        positions = torch.arange(self.longest, device=self.embedding.device).unsqueeze(0)
        with torch.no_grad():
            cos, sin = model.model.rotary_emb(self.embedding, positions)
        self.cos, self.sin = cos[0], sin[0]
        sizes = [tuple(parameter.shape) for parameter in model.parameters()]
        self.kind = hashlib.sha256(repr((type(model).__name__, sizes)).encode()).hexdigest()
        self.eval().requires_grad_(False)

    @property
    def depth(self) -> int:
        """Layers."""
        return len(self.layers)

    def under(self, policy: Policy) -> "Llama":
        """The same model, its weights shared, with another policy."""
        other = copy.copy(self)
        other.policy = policy
        return other

    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` sequences."""
        layers = tuple(self.policy.empty(batch, self.groups, self.width, self.embedding) for _ in self.layers)
        return Growing(layers, 0, of=self._mark) if self.policy.cuts else State(layers, 0, of=self._mark)

    @property
    def _mark(self) -> str:
        """What its states are marked with: the model, and the policy with its settings."""
        settings = {name: getattr(self.policy, name, None) for name in _parameters(type(self.policy))}
        return f"{self.kind} {type(self.policy).__name__} {settings}"

    @torch.no_grad()
    def forward(
        self,
        ids: Int[Tensor, "b t"],
        state: State | None = None,
        positions: Int[Tensor, "#b t"] | None = None,
        mask: Bool[Tensor, "b #h t n"] | None = None,
    ) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of each next token, and the state after them.

        Args:
            ids: the next tokens.
            state: of what came before.
            positions: of the tokens. Default: they go on from the state.
            mask: which keys each token sees, those of the past first. Default: all before it, and itself.

        Raises:
            PacelineError: the state is another model's, or there are more tokens than the model has positions.
        """
        x, after = self._read(ids, state, positions, mask)
        return self.head(x[:, -ids.shape[1] :]), after

    @torch.no_grad()
    def read_end(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b 1 v"], State]:
        """See `core.read_end`."""
        x, after = self._read(ids, state)
        return self.head(x[:, -1:]), after

    def _read(
        self, ids: Tensor, state: State | None, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """What comes out of the last layer, and the state after it."""
        state = self.initial_state(len(ids)) if state is None else state
        state.check(self._mark, ids)
        read = state.to_read(ids)
        start = state.length - (read.shape[1] - ids.shape[1])
        end = start + read.shape[1]
        past, padding = state.layers[: self.depth], state.layers[self.depth :]
        if positions is None:
            self.check_length(end)
            if padding:
                positions = torch.arange(start, end, device=ids.device).unsqueeze(0)
                shared, empty = padding[0]["shared"], padding[0]["empty"]  # (b,), and then so many tokens that are none
                keys = torch.arange(end, device=ids.device)
                first, last = (x[:, None, None, None] for x in (shared, shared + empty))
                mask = ((keys < first) | (keys >= last)) & (keys <= positions[0, :, None])
                positions = (positions - empty.unsqueeze(1)).clamp_min(0)
        x, layers = self.through(self.embed(read), past, start, positions, mask=mask)
        layers = followed(layers, padding)
        return x, Growing(layers, end, of=state.of) if isinstance(state, Growing) else state.after(read, layers)

    @property
    def pads(self) -> bool:
        """Whether `read_padded` works, which is a matter of the policy."""
        return self.policy.masks

    def read_padded(self, prompts: Sequence[Sequence[int]], shared: int = 0) -> tuple[Float[Tensor, "b 1 v"], State]:
        """Logits after each of several prompts of any lengths, and one state to go on from with all of them.

        Args:
            prompts: at least one.
            shared: how many tokens, not all of any prompt, they all begin with: these are read once.
        """
        rests = [list(prompt[shared:]) for prompt in prompts]
        longest = max(map(len, rests))
        state = self.initial_state(1)
        for start in range(0, shared, PIECE):
            _, state = self.read_end(torch.tensor([list(prompts[0][start : min(start + PIECE, shared)])]), state)
        padding = {
            "shared": torch.full((len(prompts),), shared),
            "empty": torch.tensor([longest - len(rest) for rest in rests]),
        }
        if self.policy.cuts and sum(map(len, rests)) <= PIECE:
            logits, layers = self._read_joined(rests, state)
            return logits, Growing((*layers, padding), shared + longest, of=state.of)
        state = state.select(torch.zeros(len(prompts), dtype=torch.long))
        state = replace(state, layers=(*state.layers, padding))
        ids = torch.tensor([[0] * (longest - len(rest)) + rest for rest in rests])
        for piece in ids.split(PIECE, dim=1):
            logits, state = self.read_end(piece, state)
        return logits, state

    @torch.no_grad()
    def _read_joined(
        self, rests: Sequence[Sequence[int]], state: State
    ) -> tuple[Float[Tensor, "b 1 v"], Sequence[Mapping[str, Tensor]]]:
        """Several texts after one state, joined to one that is read without padding, each blind to the others.

        Returns:
            Logits after each, and what the layers remember of each in a row of its own, padded behind the state.
        """
        lengths = torch.tensor([len(rest) for rest in rests])
        ends, rows = lengths.cumsum(0), torch.arange(len(rests)).repeat_interleave(lengths)
        places = torch.arange(len(rows))
        own = (rows[:, None] == rows) & (places[:, None] >= places)
        mask = torch.cat((own.new_ones(len(rows), state.length), own), dim=1)[None, None]
        positions = (state.length + places - (ends - lengths)[rows])[None]
        ids = torch.tensor([[token for rest in rests for token in rest]])
        x, layers = self.through(self.embed(ids), state.layers, state.length, positions, mask=mask)
        shared = torch.arange(state.length).expand(len(rests), -1)
        padded = (state.length + ends[:, None] - torch.arange(int(lengths.max()), 0, -1)).clamp_min(0)
        kept = torch.cat((shared, padded), dim=1)
        apart = tuple({name: held[0][:, kept].transpose(0, 1) for name, held in layer.items()} for layer in layers)
        return self.head(x[0, ends - 1].unsqueeze(1)), apart

    def check_length(self, tokens: int) -> None:
        """Refuse more tokens than the model has positions."""
        if tokens > self.longest:
            raise PacelineError(f"The model reads at most {self.longest:,} tokens, and this would be {tokens:,}.")

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """What the first layer reads."""
        return functional.embedding(ids, self.embedding)

    def through(
        self,
        x: Float[Tensor, "b t d"],
        past: Sequence[Mapping[str, Tensor]],
        start: int,
        positions: Int[Tensor, "#b t"] | None = None,
        first: int = 0,
        mask: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t d"], Sequence[Mapping[str, Tensor]]]:
        """The layers from `first` on that `past` is of, and what they remember then; `positions` go on from `start`."""
        if positions is None:
            positions = torch.arange(start, start + x.shape[1], device=x.device).unsqueeze(0)
        turn = self.cos[positions].unsqueeze(2), self.sin[positions].unsqueeze(2)  # (b or 1, t, 1, s)
        after = []
        for index, memory in enumerate(past, first):
            place = Place(index, self.depth, start, mask)
            x, memory = self._layer(self.layers[index], x, memory, turn, place)  # type: ignore[arg-type]
            after.append(memory)
        return x, tuple(after)

    def head(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        """Logits of what comes out of a layer."""
        return self.out(self.final(x))

    def final(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """What the head's matrix reads."""
        return functional.rms_norm(x, self.norm.shape, self.norm, self.eps)

    def _layer(
        self, layer: "_Layer", x: Tensor, memory: Mapping[str, Tensor], turn: tuple[Tensor, Tensor], place: Place
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        batch, length, _ = x.shape
        normed = functional.rms_norm(x, layer.norm_in.shape, layer.norm_in, self.eps)
        mixed = layer.qkv(normed).view(batch, length, -1, self.width)
        qk, v = mixed.split((self.heads + self.groups, self.groups), dim=2)
        if layer.norm_q is not None and layer.norm_k is not None:
            q, k = qk.split((self.heads, self.groups), dim=2)
            norms = ((q, layer.norm_q), (k, layer.norm_k))
            qk = torch.cat([functional.rms_norm(y, weight.shape, weight, self.eps) for y, weight in norms], dim=2)
        half = self.width // 2
        qk = qk * turn[0] + torch.cat((-qk[..., half:], qk[..., :half]), dim=-1) * turn[1]
        q, k = qk.transpose(1, 2).split((self.heads, self.groups), dim=1)
        heads, memory = self.policy.attend(q, k, v.transpose(1, 2), memory, place)
        x = x + layer.o(heads.transpose(1, 2).reshape(batch, length, -1))
        gate, up = layer.gate_up(functional.rms_norm(x, layer.norm_mid.shape, layer.norm_mid, self.eps)).chunk(2, -1)
        return x + layer.down(functional.silu(gate) * up), memory


class _Layer(nn.Module):
    """The weights of a layer, those that read the same joined."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.norm_in = layer.input_layernorm.weight.detach()
        self.norm_mid = layer.post_attention_layernorm.weight.detach()
        norms = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        self.norm_q, self.norm_k = (None if norm is None else norm.weight.detach() for norm in norms)
        self.qkv = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o = _joined(attention.o_proj)
        self.gate_up = _joined(mlp.gate_proj, mlp.up_proj)
        self.down = _joined(mlp.down_proj)


def _joined(*parts: nn.Linear) -> nn.Linear:
    """One map of several that read the same; one alone is shared, not copied."""
    joined = nn.Linear(parts[0].in_features, sum(p.out_features for p in parts), parts[0].bias is not None, "meta")
    if len(parts) == 1:
        joined.weight, joined.bias = parts[0].weight, parts[0].bias
        return joined
    joined.weight = nn.Parameter(torch.cat([p.weight.detach() for p in parts]))
    if parts[0].bias is not None:
        joined.bias = nn.Parameter(torch.cat([p.bias.detach() for p in parts]))
    return joined


@cache
def _parameters(kind: type) -> tuple[str, ...]:
    return tuple(inspect.signature(kind).parameters)


def refuse(model: Any) -> None:
    """Refuse a model that is not of this kind.

    Raises:
        PacelineError: with what it has that a Llama has not.
    """
    config = model.config
    kind = getattr(config, "model_type", type(model).__name__)
    if kind not in KINDS:
        raise PacelineError(f"{kind} is not of Llama's kind: Paceline's lean decoder knows {', '.join(KINDS)}.")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPES:
        raise PacelineError(f"The model's rotary embedding is of type {rope!r}: known are {', '.join(ROPES)}.")
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if windows or (kind == "mistral" and getattr(config, "sliding_window", None)):
        raise PacelineError("The model attends in sliding windows, which Paceline's lean decoder does not know.")
    if getattr(config, "hidden_act", "silu") != "silu":
        raise PacelineError(f"The model's activation is {config.hidden_act}: the lean decoder knows silu.")
