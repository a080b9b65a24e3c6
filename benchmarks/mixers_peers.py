"""Other implementations of what the mixers compute, each built to do the same work at the same width, on a processor.

`PEERS` is the table: what each is compared with, where it comes from and what differs. Of each kind it holds the
fastest that was found (LOG.md names what else was tried). Packages come with `pip install paceline[bench]`; what
authors publish as a repository alone is imported from a checkout of it. What is not there is left out.
"""

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, WINDOW, MEMORY = 256, 4, 128, 64
HEAD = WIDTH // HEADS
Heads = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """One implementation."""

    parts: tuple[str, ...]
    """Whom it is compared with."""
    source: str
    """The packages that it needs, or the name of its checkout."""
    build: Callable[..., nn.Module]
    """Of a checkout it is given the path."""
    differs: str
    shape: tuple[int, int] | None = None
    """Batch and tokens, for what is too slow for the common ones."""


class TimeFirst(nn.Module):
    """A layer of (t, b, d) as one of (b, t, d)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class First(nn.Module):
    """A layer that returns a tuple as one that returns its first element."""

    def __init__(self, layer: nn.Module, **options: object) -> None:
        super().__init__()
        self.layer, self.options = layer, options

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, **self.options)[0]


class Projected(nn.Module):
    """Maps before and after a function of queries, keys and values (b, t, heads, .); with a gate, as in `lightning`."""

    def __init__(self, mix: Heads, keys: int = HEAD, gated: bool = False) -> None:
        super().__init__()
        self.mix, self.widths = mix, [HEADS * keys, HEADS * keys, WIDTH, WIDTH * gated]
        self.maps = nn.Linear(WIDTH, sum(self.widths), bias=False)
        self.norm, self.out = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        *heads, gate = self.maps(x).split(self.widths, dim=-1)
        q, k, v = (z.unflatten(-1, (HEADS, -1)) for z in heads)
        if not gate.shape[-1]:
            return self.out(self.mix(q, k, v).flatten(2))
        mixed = self.mix(functional.silu(q), functional.silu(k), v).flatten(2)
        return self.out(self.norm(mixed) * gate.sigmoid())


class Chunks(nn.Module):
    """yet-another-retnet's layer, chunk by chunk; 128 tokens a chunk were the fastest."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = importlib.import_module("yet_another_retnet.retention").MultiScaleRetention(WIDTH, HEADS)

    def forward(self, x: Tensor) -> Tensor:
        outputs, state = [], None
        for i, chunk in enumerate(x.split(128, dim=1)):
            y, state = self.layer.forward_chunkwise(chunk, chunk, chunk, 128 * i, state)
            outputs.append(y)
        return torch.cat(outputs, dim=1)


def _file(path: Path) -> ModuleType:
    """One file as a module, without the package around it, which may ask for a GPU's compiler."""
    spec = importlib.util.spec_from_file_location(f"peer_{path.parent.name}_{path.stem}", path)
    if spec is None or spec.loader is None or not path.exists():
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fla(name: str) -> ModuleType:
    spec = importlib.util.find_spec("fla")  # finds it and runs nothing
    if spec is None or spec.origin is None:
        raise ImportError("fla")
    return _file(Path(spec.origin).parent / "ops" / name / "naive.py")


def _stub(name: str, **contents: object) -> None:
    """What a file imports and nothing here ever calls."""
    with suppress(ImportError):
        importlib.import_module(name)
        return
    for i, letter in enumerate(f"{name}."):
        if letter == ".":
            sys.modules.setdefault(name[:i], ModuleType(name[:i]))
    vars(sys.modules[name]).update(contents)


def _decay() -> Tensor:
    return -torch.exp2(-8.0 * torch.arange(1, HEADS + 1) / HEADS)


def _local() -> nn.Module:
    module = importlib.import_module("local_attention")
    return module.LocalMHA(dim=WIDTH, window_size=WINDOW, dim_head=HEAD, heads=HEADS, causal=True)


def _mambapy() -> nn.Module:
    module = importlib.import_module("mambapy.mamba")
    return module.MambaBlock(module.MambaConfig(d_model=WIDTH, n_layers=1))


def _mamba() -> nn.Module:
    module = importlib.import_module("transformers.models.mamba.modeling_mamba")
    return module.MambaMixer(module.MambaConfig(hidden_size=WIDTH, num_hidden_layers=1, use_mambapy=False), 0)


def _minimax() -> nn.Module:
    module = importlib.import_module("transformers.models.minimax.modeling_minimax")
    config = module.MiniMaxConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, head_dim=HEAD, num_hidden_layers=2, block_size=128,
        layer_types=["linear_attention"] * 2,
    )  # fmt: skip
    return First(module.MiniMaxLightningAttention(config, 0), position_embeddings=None, attention_mask=None)


def _lrpe() -> nn.Module:
    chunked, theta = _fla("simple_gla").naive_chunk_simple_gla, 10_000 ** (-2 / WIDTH * torch.arange(WIDTH))

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        angles = learned * torch.arange(q.shape[1]).view(-1, 1, 1)
        cos, sin = angles.cos(), angles.sin()
        q, k = (torch.cat((z * cos, z * sin), dim=-1) for z in (q, k))
        return chunked(q, k, v, _decay().expand(q.shape[:3]), chunk_size=128, scale=1.0)[0]

    layer = Projected(mix, gated=True)
    learned = layer.theta = nn.Parameter(theta.view(HEADS, HEAD))
    return layer


def _based() -> nn.Module:
    expand = importlib.import_module("taylor_series_linear_attention.attention").second_taylor_expansion
    chunked = _fla("linear_attn").naive_chunk_linear_attn

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = (expand(z / 2, remove_even_power_dups=True) for z in (q, k))  # 16 numbers: both divided by 16^(1/4)
        return chunked(q, k, v, scale=1.0, normalize=True)

    return Projected(mix, keys=16)


def _mega_ema() -> nn.Module:
    module = importlib.import_module("mega_pytorch.mega_pytorch")
    return nn.Sequential(module.MultiHeadedEMA(dim=WIDTH, heads=16), nn.SiLU(), nn.Linear(WIDTH, WIDTH))


def _ema(checkout: Path) -> nn.Module:
    average = _file(checkout / "standalone_seqboat.py").MultiHeadEMA(WIDTH, 16)
    return nn.Sequential(TimeFirst(average), nn.SiLU(), nn.Linear(WIDTH, WIDTH))


def _seqboat(checkout: Path) -> nn.Module:
    layer = _file(checkout / "standalone_seqboat.py").SeqBoatLayer(
        WIDTH, WIDTH // 4, 2 * WIDTH, 16, attention_activation="softmax", window_size=MEMORY, rel_pos_bias="rotary"
    )
    nn.init.normal_(layer.hx_proj.weight[:2], std=0.1)
    whole = TimeFirst(layer)
    half_active(whole, layer.hx_proj, torch.randn(4, 2_048, WIDTH))
    return whole


def _s4(checkout: Path) -> nn.Module:
    _stub("pytorch_lightning.utilities", rank_zero_only=lambda function: function)
    return First(_file(checkout / "models/s4/s4.py").S4Block(WIDTH, d_state=32, mode="dplr", transposed=False))


def _s4d(checkout: Path) -> nn.Module:
    _stub("src.models.nn", DropoutNd=nn.Dropout)
    return First(_file(checkout / "models/s4/s4d.py").S4D(WIDTH, d_state=32, transposed=False))


def _aaren(checkout: Path) -> nn.Module:
    sys.path.insert(0, str(checkout))  # its two files import one another
    return importlib.import_module("attention_as_rnn").attention_as_rnn(HEADS, WIDTH, HEAD, WIDTH)


@torch.no_grad()
def half_active(layer: nn.Module, router: nn.Module, x: Tensor) -> None:
    """Sets the bias of a router's first two outputs so that half of the tokens are activated."""
    seen: list[Tensor] = []
    hook = router.register_forward_hook(lambda _, inputs, output: seen.append(output))
    router.bias[:2] = 0
    layer(x)
    hook.remove()
    router.bias[1] = (seen[0][..., 0] - seen[0][..., 1]).median()


CHECKOUTS = {"seqboat": "renll/SeqBoat", "s4": "state-spaces/s4", "aaren": "andreofner/attention-as-rnn-pytorch"}

PEERS: dict[str, Peer] = {
    "local-attention": Peer(
        ("attention(window=128)",), "local-attention", _local, "also a norm; keys of 128 to 255 back"
    ),
    "EMA of Mega's authors": Peer(("ema",), "seqboat", _ema, "FFT over the whole length; as SeqBoat's authors ship it"),
    "mega-pytorch": Peer(("ema",), "mega-pytorch", _mega_ema, "16 decays in all, with FFTs of every channel for each"),
    "S4's authors": Peer(("s4",), "s4", _s4, "FFT over the whole length, without their CUDA kernels"),
    "S4D's authors": Peer(("s4d",), "s4", _s4d, "FFT over the whole length"),
    "transformers MiniMax": Peer(
        ("lightning", "transnormer(positions=False)"), "transformers", _minimax, "SiLU on values too; blocks of 128"
    ),
    "fla-core, LRPE": Peer(("transnormer",), "fla-core", _lrpe, "LRPE around its chunked form in plain torch, RMSNorm"),
    "fla-core, Taylor features": Peer(
        ("jrt",), "fla-core taylor-series-linear-attention", _based, "two packages' functions, joined"
    ),
    "yet-another-retnet": Peer(("retnet(expansion=1)",), "yet-another-retnet", Chunks, "maps with biases, GroupNorm"),
    "attention-as-rnn-pytorch": Peer(("aaren",), "aaren", _aaren, "the mean over heads is mapped, not all of them"),
    "SeqBoat's authors": Peer(("seqboat",), "seqboat", _seqboat, "nothing; half of the tokens activated in both"),
    "mambapy": Peer(("mamba", "aaren"), "mambapy", _mambapy, "nothing; beside aaren, another mixer of its kind"),
    "transformers Mamba": Peer(
        ("mamba", "aaren"), "transformers", _mamba, "one sequence; a loop, whose gradient is quadratic", (1, 2_048)
    ),
}


def version(peer: Peer, checkouts: dict[str, Path]) -> str | None:
    """Of its packages or its checkout's commit; none if one is missing."""
    if peer.source in CHECKOUTS:
        if peer.source not in checkouts:
            return None
        told = ["git", "-C", str(checkouts[peer.source]), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(told, capture_output=True, text=True, check=False).stdout.strip()
        return f"{CHECKOUTS[peer.source]} {commit or 'of an unknown commit'}"
    try:
        return ", ".join(f"{name} {metadata.version(name)}" for name in peer.source.split())
    except metadata.PackageNotFoundError:
        return None


def made(peer: Peer, checkouts: dict[str, Path]) -> nn.Module | None:
    """The layer, or nothing where what it needs is not there."""
    if peer.source in CHECKOUTS:
        return peer.build(checkouts[peer.source]) if peer.source in checkouts else None
    return peer.build() if version(peer, checkouts) is not None else None
