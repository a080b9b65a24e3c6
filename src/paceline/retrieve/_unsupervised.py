"""An encoder that nobody trained for search: the mean of a language model's token embeddings, whitened.

    u(text) = sum over i of w_i e_i / sum w_i,  w_i = a / (a + p_i),  p_i the token's share of the documents' tokens
    f(text) = W (u - mean u),  of length 1            W: the `width` main directions of the documents, each scaled to 1

with a = 0.001 (Arora, Liang and Ma 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings") and whitening
(Su et al. 2021, "Whitening Sentence Representations for Better Semantics and Faster Retrieval"). Without the second
line all texts point the same way and little is found; with it this is a fair, if small, encoder without labels.
Fitting reads the documents' tokens once and takes one singular value decomposition of (n, d).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from paceline.core.errors import PacelineError

A = 1e-3


class TokenMeans:
    """Texts to whitened means of their tokens' embeddings.

    Args:
        table: an embedding for each token, (v, e), such as a language model's input embeddings.
        tokens: text to token numbers. Where a space tells that a word begins, put one before the text too, or its first
            word, which may be the whole query, falls into other tokens than in the documents.
        width: numbers of a vector, at most; fewer where there are fewer documents.

    Raises:
        PacelineError: `width` is below 1.
    """

    def __init__(self, table: Float[Tensor, "v e"], tokens: Callable[[str], list[int]], width: int = 256) -> None:
        if width < 1:
            raise PacelineError(f"A vector needs at least one number, not {width}.")
        self.table, self.tokens, self.width = table.detach().float(), tokens, width
        self.weight = torch.ones(len(table))
        self.mean = torch.zeros(self.table.shape[1])
        self.whiten: Float[Tensor, "e d"] = torch.eye(self.table.shape[1])

    def fit(self, documents: Sequence[str]) -> None:
        """How frequent tokens are in the documents, their mean and their main directions."""
        counts = torch.zeros(len(self.table))
        for ids in map(self._ids, documents):
            counts.index_add_(0, ids, torch.ones(len(ids)))
        self.weight = A / (A + counts / counts.sum().clamp_min(1))
        means = self._means(documents)
        self.mean = means.mean(0)
        _, sizes, directions = torch.linalg.svd(means - self.mean, full_matrices=False)
        large = int((sizes > 1e-4 * sizes[0]).sum()) if len(sizes) else 0
        kept = max(1, min(self.width, large))
        self.whiten = directions[:kept].T * (len(documents) ** 0.5 / sizes[:kept].clamp_min(1e-12))

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """See `Encoder`."""
        return functional.normalize((self._means(texts) - self.mean) @ self.whiten, dim=1)

    def _ids(self, text: str) -> Int[Tensor, " t"]:
        return torch.tensor(self.tokens(text), dtype=torch.int64)

    def _means(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        rows = []
        for ids in map(self._ids, texts):
            weight = self.weight[ids].unsqueeze(1)
            rows.append((self.table[ids] * weight).sum(0) / weight.sum().clamp_min(1e-12))
        return torch.stack(rows)
