"""Hidden spans: where they lie, and the sequences that show a window with gaps and then what was in them.

    [mode]  plain tokens, a sentinel for each span  END  sentinel 0, span 0, sentinel 1, span 1, ...  END

What follows the first END is asked. The layout is T5's with its input and output one after the other.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.objectives._contract import Example, Objective, as_example


def counts(window: int, rate: float, span: float) -> tuple[int, int]:
    """(hidden tokens, spans) of a window: T5's, but that between two spans a token must be shown."""
    hidden = min(max(round(window * rate), 1), window - 1)
    spans = max(round(hidden / span), 1)
    return hidden, min(spans, hidden, window - hidden + 1)


def draw_spans(batch: int, window: int, hidden: int, spans: int, generator: torch.Generator) -> Bool[Tensor, "b t"]:
    """Which tokens are hidden: every choice of so many spans, apart by a token at least, is equally likely."""
    covered = _segments(batch, hidden, spans, generator)
    shown = _segments(batch, window - hidden + 2, spans + 1, generator)  # of which the ends may be empty
    shown[:, 0] -= 1
    shown[:, -1] -= 1
    ends = torch.stack((shown[:, :-1], covered), 2).flatten(1).cumsum(1)
    place = torch.arange(window).expand(batch, -1).contiguous()
    return torch.searchsorted(ends, place, right=True) % 2 == 1


def hide(objective: Objective, windows: Int[Tensor, "b t"], hidden: Bool[Tensor, "b t"], mode: int | None) -> Example:
    """The sequences of windows of which each hides as many tokens, in as many spans, as the others."""
    batch = len(windows)
    first = hidden & ~torch.nn.functional.pad(hidden[:, :-1], (1, 0))
    sentinels = objective.sentinel(0) + first.cumsum(1) - 1
    shown = torch.where(first, sentinels, windows)[~hidden | first].view(batch, -1)
    pairs, kept = torch.stack((sentinels, windows), 2), torch.stack((first, hidden), 2)
    told = pairs[kept].view(batch, -1)
    end = torch.full((batch, 1), objective.end)
    head = [] if mode is None else [torch.full((batch, 1), mode)]
    sequence = torch.cat((*head, shown, end, told, end), 1)
    asked = torch.zeros_like(sequence, dtype=torch.bool)
    asked[:, -told.shape[1] - 1 :] = True
    return as_example(sequence, asked)


def fill(objective: Objective, sequence: Int[Tensor, " m"]) -> Int[Tensor, " t"]:
    """The window that a sequence was made of: each sentinel that is shown gives way to the span that it stands for.

    Raises:
        PacelineError: a span is missing.
    """
    ids = sequence.tolist()
    end, modes, lowest = objective.end, range(objective.end + 1, objective.sentinel(0)), objective.sentinel(0)
    start = int(bool(ids) and ids[0] in modes)
    if end not in ids[start:]:
        raise PacelineError("The sequence does not close what it shows: it is none that hides spans.")
    close = ids.index(end, start)
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in ids[close + 1 :]:
        if token == end:
            break
        if token >= lowest:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    if missing := [token for token in ids[start:close] if token >= lowest and token not in spans]:
        raise PacelineError(f"Hidden span {missing[0] - lowest} is shown nowhere: the sequence was cut.")
    return torch.tensor([t for token in ids[start:close] for t in spans.get(token, [token])])


def _segments(batch: int, items: int, parts: int, generator: torch.Generator) -> Int[Tensor, "b k"]:
    """Sizes of parts, none empty, that add up to `items`; all ways of cutting are equally likely."""
    ranks = torch.rand(batch, items - 1, generator=generator).argsort(1).argsort(1)
    part = torch.nn.functional.pad((ranks < parts - 1).long().cumsum(1), (1, 0))
    return torch.zeros(batch, parts, dtype=torch.long).scatter_add_(1, part, torch.ones_like(part))
