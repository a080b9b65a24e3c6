"""Spoken keywords as raw sound: one second of waveform, sample by sample; which word was said?

16,000 tokens of 256 mu-law levels, and the word (tokens 256 to 265) is asked at the last one. The ten words of Speech
Commands are spoken by espeak-ng in many voice variants, accents, pitches and speeds; the variants that are measured on
are never trained on. `steps` gives the same second at a lower rate, e.g. 2,000 samples (speech up to 1 kHz).

Departure: synthetic voices without noise are easier than the recorded ones of the data set, and far fewer.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch, Task
from paceline.data._speech import Recipe, Speech, speech

PAPERS = (
    Source(title="Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arxiv="1804.03209", year=2018),
)

LEVELS = 256
RATE = 16_000
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
TRAIN = (
    "f1", "m1", "f2", "m2", "f3", "m4", "f4", "m5", "Alicia", "Alex", "Annie", "Andy", "anika", "adam", "belinda",
    "caleb", "grandma", "grandpa", "steph", "boris", "aunty", "david", "klatt", "klatt2", "croak", "edward", "shelby",
    "gustave", "steph2", "max", "quincy", "victor",
)  # fmt: skip
HELDOUT = ("f5", "m3", "linda", "michel", "Andrea", "m7", "klatt4", "norbert")


class Keywords(Task):
    """Classify a word from its waveform.

    Args:
        steps: samples of the second, a divisor of 16,000; the sequence's length.
        speakers: voice variants to train on, 4 to 32; a quarter as many others are measured on.
        takes: renderings of each word by each speaker.

    Raises:
        PacelineError: a size out of range, espeak-ng is not installed, or the cache cannot be written.
    """

    name = "keywords"
    one_answer = True
    title = "Spoken keywords"
    metric = "accuracy"
    better = "higher"
    vocab_size = LEVELS + len(WORDS)
    floor = 1 / len(WORDS)  # every word comes equally often
    ceiling = 1.0

    def __init__(self, steps: int = RATE, speakers: int = len(TRAIN), takes: int = 4) -> None:
        if steps < 100 or RATE % steps:
            raise PacelineError(
                f"keywords: steps={steps} does not divide {RATE:,}, or is below 100: give 2000 or 4000."
            )
        if not 4 <= speakers <= len(TRAIN) or takes < 1:
            raise PacelineError(
                f"keywords: give 4 to {len(TRAIN)} speakers (not {speakers}), and takes={takes} above 0."
            )
        self.recipe = Recipe(WORDS, TRAIN[:speakers], HELDOUT[: speakers // 4], takes, steps)
        self.length, self.items = steps, len(self.recipe.heldout) * takes * len(WORDS)
        self._speech: Speech | None = speech(self.recipe)

    @property
    def speech(self) -> Speech:
        """The clips, opened when first needed."""
        if self._speech is None:
            self._speech = speech(self.recipe)
        return self._speech

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_speech": None}  # a memory map is opened anew in the other process

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """A word, a speaker and a take, each drawn evenly."""
        parts = (len(self.recipe.train), self.recipe.takes, len(WORDS))
        who, take, word = (torch.randint(part, (size,), generator=generator) for part in parts)
        return self._batch(torch.from_numpy(self.speech.train[who.numpy(), take.numpy(), word.numpy()]), word)

    def evaluation(self) -> Batch:
        """All clips of the speakers that are held out."""
        clips = torch.from_numpy(self.speech.heldout.reshape(self.items, self.length).copy())
        return self._batch(clips, torch.arange(self.items) % len(WORDS))

    def _batch(self, clips: Tensor, word: Tensor) -> Batch:
        ids = clips.long()
        targets = torch.full_like(ids, IGNORE)
        targets[:, -1] = word + LEVELS
        return Batch(ids, targets)

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Name one of {len(WORDS)} spoken words from {self.length:,} samples of its waveform; {self.items} clips "
            f"by {len(self.recipe.heldout)} other speakers are held out (digest {self.speech.digest[:8]})."
        )

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Levels 0 to 255, then the words."""
        names = [f"{i} " for i in range(LEVELS)] + [f"{word} " for word in WORDS]
        return [names[i] for i in ids.tolist()]


def example() -> Keywords:
    """The smallest instance for the contract tests."""
    return Keywords(steps=100, speakers=4, takes=1)
