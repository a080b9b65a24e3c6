"""A language model behind an OpenAI-compatible endpoint, as pipelines see it.

Each call has a deadline for all of it, a limit on what comes back, and is made again after a while where it may help:
no connection, a time-out, too many requests, a fault of the server. What comes back is checked before it is used.
"""

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from paceline.core.errors import PacelineError
from paceline.lm.written import Written

KEY = "PACELINE_API_KEY"
"""Environment variable with an endpoint's key, which others would see on a command line."""
AGAIN = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
LARGEST = 2**24
"""Bytes of an answer."""
FORM = 32
"""Tokens that the form of a chat adds, at most."""
STOPS = 4
"""Texts to stop before that endpoints take; the others are looked for here."""
LONGEST_WAIT = 30.0
"""Seconds, whatever the endpoint asks for."""


class Endpoint:
    """A `TextModel` that asks `{url}/chat/completions`, or `{url}/completions`.

    Args:
        url: up to `/v1`.
        model: its name there.
        key: sent as a bearer token; shown nowhere.
        chat: whether prompts are put as a user's turn, or gone on with as they are.
        seconds: for all of one request.
        tries: how often a request is made.
        words: counts the tokens of a text, where the tokenizer is known. Default: its bytes, which are never too few.

    Raises:
        PacelineError: the url is none, a limit is not above 0, or the library httpx2 is not installed.
    """

    def __init__(
        self, url: str, model: str, key: str | None = None, chat: bool = True, seconds: float = 120.0, tries: int = 4,
        words: Callable[[str], int] | None = None,
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.username or parts.query or parts.fragment:
            raise PacelineError("An endpoint is given as http://HOST/v1 or https://HOST/v1, without a user or a query.")
        if seconds <= 0 or tries < 1:
            raise PacelineError(f"An endpoint needs some seconds and at least one try, not {seconds} and {tries}.")
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise PacelineError("The endpoint's key is blank or has signs that no key has: check where it comes from.")
        self.url, self.model, self.chat, self.seconds, self.tries = url.rstrip("/"), model, chat, seconds, tries
        self._key, self._words, self._http = key, words, _library()
        self.wait: Callable[[float], None] = time.sleep

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.model!r})"

    def complete(self, prompt: str, tokens: int, stop: Sequence[str] = ()) -> Written:
        """See `TextModel.complete`.

        Raises:
            PacelineError: an empty prompt; the endpoint does not answer in time, refuses, or answers rubbish.
        """
        if not prompt.strip():
            raise PacelineError("The prompt is empty: give at least one character to continue from.")
        if tokens < 1 or not all(stop):
            raise PacelineError(f"At least one token must be generated, not {tokens}, and no stop may be empty.")
        prompt = prompt.encode(errors="replace").decode()
        body: dict[str, Any] = {"model": self.model, "max_tokens": tokens, "temperature": 0}
        body |= {"messages": [{"role": "user", "content": prompt}]} if self.chat else {"prompt": prompt}
        body |= {"stop": list(stop[:STOPS])} if stop else {}
        record = self._ask("chat/completions" if self.chat else "completions", body)
        text = _text(record, self.chat)
        if text is None:
            shown = json.dumps(record)[:80]
            raise PacelineError(
                f"{self.url} answers JSON that holds no text, {shown!r}: is it an OpenAI-compatible one?"
            )
        read, made = _usage(record, "prompt_tokens"), _usage(record, "completion_tokens")
        ends = [at for at in map(text.find, stop) if at >= 0]
        return Written(
            text[: min(ends)] if ends else text,
            self.count(prompt) if read is None else read,
            min(tokens, self.count(text)) if made is None else made,
        )

    def nats(self, prompt: str, continuations: Sequence[str]) -> tuple[list[float], int]:
        """Always refused: these endpoints tell what they write, not what a given text costs."""
        raise PacelineError(f"{self.url} does not tell what a text costs: give a model that is opened here.")

    def count(self, text: str) -> int:
        """See `TextModel.count`; without a tokenizer an upper bound."""
        counted = len(text.encode(errors="replace")) if self._words is None else self._words(text)
        return counted + (FORM if self.chat else 0)

    def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer's JSON."""
        why = ""
        for attempt in range(self.tries):
            try:
                status, content, after = self._post(path, body)
            except (self._http.TransportError, TimeoutError) as error:
                why, after = _reason(error, self.seconds), None
            else:
                if status == 200:
                    return self._json(content)
                why = f"status {status}{_message(content)}"
                if status not in AGAIN:
                    raise PacelineError(f"{self.url} refuses the request ({why}): check address, model and key.")
            if attempt + 1 < self.tries:
                self.wait(min(LONGEST_WAIT, 0.5 * 2**attempt if after is None else after))
        times = "once" if self.tries == 1 else f"{self.tries} times"
        raise PacelineError(f"{self.url} was asked {times} without an answer ({why}): see whether it is up.")

    def _post(self, path: str, body: Mapping[str, Any]) -> tuple[int, bytes, float | None]:
        """Status, content, and the seconds that the endpoint asks to wait."""
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        deadline, pieces, size = time.monotonic() + self.seconds, [], 0
        with self._http.stream(
            "POST", f"{self.url}/{path}", json=body, headers=headers, timeout=self.seconds, follow_redirects=False
        ) as answer:
            for piece in answer.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST:
                    raise PacelineError(f"{self.url} answers with more than {LARGEST >> 20} MiB: is it the right one?")
                if time.monotonic() > deadline:
                    raise TimeoutError
            return answer.status_code, b"".join(pieces), _seconds(answer.headers.get("retry-after"))

    def _json(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            shown = content[:60].decode(errors="replace")
            raise PacelineError(f"{self.url} answers no JSON but {shown!r}: is it an OpenAI-compatible one?") from error


def _text(record: Any, chat: bool) -> str | None:
    try:
        choice = record["choices"][0]
        text = choice["message"]["content"] if chat else choice["text"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None


def _usage(record: Any, name: str) -> int | None:
    """A count of tokens, where the answer has one."""
    usage = record.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None


def _message(content: bytes) -> str:
    """What an error says of itself, in so many signs."""
    try:
        error = json.loads(content)["error"]
        text = error if isinstance(error, str) else error["message"]
        return ", " + "".join(sign if sign.isprintable() else " " for sign in text[:120])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _reason(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return f"nothing within {seconds:g} seconds"
    return " ".join(str(error).split())[:120] or type(error).__name__


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, min(float(header), LONGEST_WAIT)) if header is not None else None
    except ValueError:  # a date: the usual waits do
        return None


def _library() -> Any:
    try:
        return importlib.import_module("httpx2")
    except ImportError as error:
        raise PacelineError("An endpoint is asked through httpx2: pip install 'httpx2>=2'.") from error
