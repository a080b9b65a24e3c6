"""A table of which tokens follow each pair of tokens, and a tree search for what it expects to come.

Weights w(c | a, b) grow with what was read, from 0 up to `MOST`. The search is Monte Carlo with the rule of PUCT, as in
ADED's code: from the pair at the root it steps, up to `depth` times, to the child of largest

    score / n + (C1 + ln((N + C2 + 1) / C2)) w sqrt(N) / (1 + n)

where n counts the child's visits and N the parent's; a child never visited comes first. At a leaf all successors become
children, the rest of a text is drawn by the weights, and 1 + the sum of the weights on the way is added to the scores.
"""

import math
import random
from collections.abc import Sequence

STEP, MOST = 0.04, 3.0
"""What reading a token adds to a weight, and where it ends."""
C1, C2 = 32.0, 8.0
WIDTH = 12
"""Successors of a pair that are looked at, the heaviest."""

Pair = tuple[int, int]


class Trigrams:
    """The table."""

    def __init__(self) -> None:
        self._weights: dict[Pair, dict[int, float]] = {}
        self._heaviest: dict[Pair, list[tuple[int, float]]] = {}

    def __len__(self) -> int:
        """Pairs known."""
        return len(self._weights)

    def add(self, pair: Pair, token: int, share: float = 1.0) -> None:
        """The token, or a share of one, was seen after the pair."""
        known = self._weights.setdefault(pair, {})
        known[token] = min(known.get(token, 0.0) + STEP * share, MOST)
        self._heaviest.pop(pair, None)

    def read(self, ids: Sequence[int], start: int = 0) -> None:
        """Every token from number `start` on was seen after the two before it."""
        for end in range(max(start, 2), len(ids)):
            self.add((ids[end - 2], ids[end - 1]), ids[end])

    def after(self, pair: Pair) -> list[tuple[int, float]]:
        """The heaviest successors with their weights, the heaviest first."""
        if pair not in self._heaviest:
            known = self._weights.get(pair, {})
            self._heaviest[pair] = sorted(known.items(), key=lambda entry: (-entry[1], entry[0]))[:WIDTH]
        return self._heaviest[pair]


class Node:
    """A place in the search tree."""

    __slots__ = ("children", "pair", "score", "visits", "weight")

    def __init__(self, pair: Pair, weight: float) -> None:
        self.pair, self.weight = pair, weight
        self.visits, self.score = 0, 0.0
        self.children: list[Node] = []

    @property
    def token(self) -> int:
        """The last of the pair."""
        return self.pair[1]

    def expand(self, table: Trigrams) -> None:
        """Make all successors children."""
        self.children = [Node((self.token, token), weight) for token, weight in table.after(self.pair)]

    def best(self) -> "Node":
        """The child to go to."""
        bonus = (C1 + math.log((self.visits + C2 + 1) / C2)) * math.sqrt(self.visits)
        chosen, most = self.children[0], -math.inf
        for child in self.children:
            if child.visits == 0:
                return child
            value = child.score / child.visits + bonus * child.weight / (1 + child.visits)
            if value > most:
                chosen, most = child, value
        return chosen


def search(table: Trigrams, pair: Pair, depth: int, iterations: int, chance: random.Random) -> Node:
    """The tree after so many rounds; its root is the pair itself."""
    root = Node(pair, 0.0)
    for _ in range(iterations):
        way = [root]
        while len(way) <= depth and way[-1].children:
            way.append(way[-1].best())
        if len(way) <= depth:
            way[-1].expand(table)
            if way[-1].children:
                way.append(way[-1].children[0])
        score, last = 1.0 + sum(node.weight for node in way), way[-1].pair
        for _ in range(depth + 1 - len(way)):
            successors = table.after(last)
            if not successors:
                break
            token, weight = chance.choices(successors, [weight for _, weight in successors])[0]
            score, last = score + weight, (last[1], token)
        for node in way:
            node.visits += 1
            node.score += score
    return root


def most_visited(root: Node, nodes: int) -> tuple[list[int], list[int]]:
    """The tokens of the nodes visited most, parents before children, and each one's parent (-1: the root)."""
    tokens: list[int] = []
    parents: list[int] = []
    open_: list[tuple[Node, int]] = [(child, -1) for child in root.children if child.visits]
    while open_ and len(tokens) < nodes:
        place = max(range(len(open_)), key=lambda i: open_[i][0].visits)
        node, parent = open_.pop(place)
        open_ += [(child, len(tokens)) for child in node.children if child.visits]
        tokens.append(node.token)
        parents.append(parent)
    return tokens, parents


def likeliest(root: Node, depth: int, table: Trigrams) -> list[int]:
    """The most visited way down, then the heaviest successors, `depth` tokens at most."""
    node, tokens = root, list[int]()
    while len(tokens) < depth:
        visited = [child for child in node.children if child.visits]
        if not visited:
            node.expand(table)
            visited = node.children[:1]
        if not visited:
            break
        node = max(visited, key=lambda child: child.visits)
        tokens.append(node.token)
    return tokens
