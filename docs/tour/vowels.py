"""A reward: a number for each text, more is better."""


def vowels(prompts: list[str], texts: list[str]) -> list[int]:
    """How many vowels a text has."""
    return [sum(text.count(v) for v in "aeiou") for text in texts]
