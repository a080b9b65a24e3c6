"""Models as pipelines see them: opened ones say what decoding says, endpoints are believed only what is well formed."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from _lms import decoding_lm
from _tiny import model as tiny

from paceline.core.errors import PacelineError
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.lm import text_model as module
from paceline.lm.endpoint import Endpoint
from paceline.lm.layers import layered
from paceline.lm.open import Bytes, Opened
from paceline.lm.text_model import OpenedText, text_model
from paceline.lm.written import TextModel

KINDS = ["attention", "ema", "layered hybrid", "lean llama", "gpt2", "mamba"]


def opened(kind: str, ends=()) -> Opened:
    return Opened(kind, decoding_lm(kind), Numbers(), ends)


class Numbers:
    """Digits, as tokens below 10."""

    def encode(self, text):
        return [ord(sign) - 48 for sign in text]

    def decode(self, ids):
        return "".join(chr(48 + token) for token in ids)


PROMPT = "0123456789" * 2


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_opened_model_says_what_greedy_decoding_says(kind):
    given = opened(kind)
    model = OpenedText(given)
    assert isinstance(model, TextModel)
    ids = given.words.encode(PROMPT)
    whole = generate(given.lm, ids, Greedy(), 8).all()
    for _ in range(2):  # the second time from what was kept
        written = model.complete(PROMPT, 8)
        assert (given.words.encode(written.text), written.read, written.made) == (whole, len(ids), 8)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_nats_are_those_of_each_continuation_read_alone(kind):
    given = opened(kind)
    more = ["12", "3", "45678", "12"]
    costs, read = OpenedText(given).nats(PROMPT, more)
    for text, cost in zip(more, costs, strict=True):
        ids = torch.tensor([given.words.encode(PROMPT + text)])
        logits = given.lm(ids, given.lm.initial_state(1))[0][0].double().log_softmax(-1)
        alone = -sum(float(logits[i - 1, ids[0, i]]) for i in range(len(PROMPT), ids.shape[1]))
        assert cost == pytest.approx(alone, rel=1e-9)
    assert read == len(PROMPT) - 1 + sum(len(text) + 1 for text in more)
    assert costs[0] == costs[3]


def test_what_was_asked_before_changes_nothing_and_is_not_read_again():
    given = opened("lean llama")
    first, model = OpenedText(given), OpenedText(given)
    model.complete(PROMPT + "77", 3)
    reads = []
    inner = model.lm

    class Watched:
        def __getattr__(self, name):
            return getattr(inner, name)

        def __call__(self, ids, state):
            reads.append(ids.shape[1])
            return inner(ids, state)

    model.lm = Watched()
    assert model.complete(PROMPT + "3", 4) == first.complete(PROMPT + "3", 4)
    assert sum(reads) == 1 + 3  # the last token of the prompt, then those made but the last
    assert len(model._kept) <= module.KEPT


def test_kept_states_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    model = OpenedText(opened("ema"))
    for start in "012345":
        model.complete(start + PROMPT, 1)
    assert len(model._kept) == 3


def test_stops_end_a_text_before_them():
    model = OpenedText(opened("attention"))
    whole = model.complete(PROMPT, 8)
    cut = model.complete(PROMPT, 8, stop=[whole.text[3:5], "never"])
    at = whole.text.find(whole.text[3:5])
    assert cut.text == whole.text[:at] and cut.made == at + 2


def test_the_model_s_own_end_is_no_text():
    given = opened("attention")
    end = given.words.encode(OpenedText(given).complete(PROMPT, 1).text)[0]
    written = OpenedText(opened("attention", (end,))).complete(PROMPT, 8)
    assert (written.text, written.made) == ("", 1)


@torch.no_grad()
def test_tokens_that_reach_over_the_end_of_the_prompt_count_with_every_continuation():
    class Pairs(Numbers):
        """A pair of nines is one token."""

        def encode(self, text):
            return super().encode(text.replace("99", ":"))

    given = Opened("pairs", decoding_lm("attention"), Pairs())
    costs, _ = OpenedText(given).nats("1239", ["9", "4"])
    ids = [[1, 2, 3, 10], [1, 2, 3, 9, 4]]  # three tokens are before both
    for cost, row in zip(costs, ids, strict=True):
        logits = given.lm(torch.tensor([row]), given.lm.initial_state(1))[0][0].double().log_softmax(-1)
        assert cost == pytest.approx(-sum(float(logits[i - 1, row[i]]) for i in range(3, len(row))), rel=1e-9)


def test_a_model_in_training_is_asked_without_dropout_and_goes_on_training():
    lm = tiny("attention")
    lm.train()
    model = OpenedText(Opened("mine", layered(lm), Numbers()))
    model.complete(PROMPT, 2)
    assert lm.training


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda m: m.complete("", 3), "empty"),
        (lambda m: m.complete(PROMPT, 0), "token"),
        (lambda m: m.complete(PROMPT, 3, stop=[""]), "stop"),
        (lambda m: m.nats(PROMPT, []), "continuation"),
        (lambda m: m.nats(PROMPT, ["1", ""]), "continuation"),
        (lambda m: m.nats("", ["1"]), "prompt"),
        (lambda m: OpenedText(m.opened, chat=True), "chat"),
        (lambda m: text_model("http://localhost:9/v1"), "name one"),
        (lambda m: text_model("nowhere-at-all"), "nowhere-at-all"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask, says):
    with pytest.raises(PacelineError, match=says):
        ask(OpenedText(opened("attention")))


def test_bytes_are_counted():
    assert OpenedText(Opened("bytes", decoding_lm("attention"), Bytes())).count("né") == 3


# --- endpoints


@pytest.fixture
def served():
    """An endpoint that answers what it is told, and what it was asked."""
    answers, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, body, self.headers.get("authorization")))
            status, content, more = answers.pop(0) if len(answers) > 1 else answers[0]
            if callable(content):
                content = content()
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", answers, asked
    server.shutdown()
    thread.join()
    server.server_close()


def chat(text, **usage):
    return {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}


def quickly(url, **settings) -> Endpoint:
    endpoint = Endpoint(url, "m", **settings)
    endpoint.waits = []
    endpoint.wait = endpoint.waits.append
    return endpoint


def test_an_endpoint_is_asked_and_counted(served):
    url, answers, asked = served
    answers.append((200, chat("Paris. Next", prompt_tokens=7, completion_tokens=3), {}))
    endpoint = quickly(url, key="secret")
    assert isinstance(endpoint, TextModel)
    written = endpoint.complete("Capital of France?", 5, stop=[". ", "a", "b", "c", "Par"])
    assert (written.text, written.read, written.made) == ("", 7, 3)
    path, body, key = asked[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret") and "secret" not in repr(endpoint)
    assert body == {
        "model": "m", "max_tokens": 5, "temperature": 0, "stop": [". ", "a", "b", "c"],
        "messages": [{"role": "user", "content": "Capital of France?"}],
    }  # fmt: skip


def test_an_endpoint_without_chat_goes_on_with_the_prompt(served):
    url, answers, asked = served
    answers.append((200, {"choices": [{"text": " Paris"}]}, {}))
    written = quickly(url, chat=False, words=lambda text: len(text.split())).complete("The capital is", 4)
    assert (written.text, written.read, written.made) == (" Paris", 3, 1)
    assert asked[0][0] == "/v1/completions" and asked[0][1]["prompt"] == "The capital is"


def test_it_is_asked_again_where_that_may_help(served):
    url, answers, asked = served
    answers += [(503, b"", {}), (429, b"", {"retry-after": "7"}), (200, chat("yes"), {})]
    endpoint = quickly(url)
    assert endpoint.complete("?", 1).text == "yes"
    assert len(asked) == 3 and endpoint.waits == [0.5, 7.0]


@pytest.mark.parametrize(
    ("status", "content", "says"),
    [
        (401, {"error": {"message": "bad key\nhere"}}, "status 401, bad key here"),
        (404, b"<html>", "status 404"),
        (302, b"", "status 302"),
        (500, b"", "4 times without an answer .status 500"),
        (200, b"<html>not json", "no JSON"),
        (200, b"[" * 100_000, "no JSON"),
        (200, b"3", "holds no text"),
        (200, {"choices": []}, "holds no text"),
        (200, {"choices": [{"message": {"content": None}}]}, "holds no text"),
        (200, {"choices": [{"text": "a chat was asked for"}]}, "holds no text"),
        (200, b"x" * (2**24 + 1), "more than 16 MiB"),
    ],
)
def test_rubbish_is_refused_in_a_sentence(served, status, content, says):
    url, answers, _ = served
    answers.append((status, content, {}))
    with pytest.raises(PacelineError, match=says) as refused:
        quickly(url).complete("?", 1)
    assert "\n" not in str(refused.value)


def test_one_that_is_down_or_slow_is_given_up(served):
    url, answers, _ = served
    gate = threading.Event()
    answers.append((200, lambda: gate.wait(5) and b"", {}))
    with pytest.raises(PacelineError, match=r"asked 2 times without an answer \(nothing within 0.1 seconds"):
        quickly(url, seconds=0.1, tries=2).complete("?", 1)
    gate.set()
    with pytest.raises(PacelineError, match="asked once without an answer"):
        quickly("http://127.0.0.1:9/v1", tries=1).complete("?", 1)


def test_odd_usage_is_not_believed(served):
    url, answers, _ = served
    answers.append((200, chat("ok", prompt_tokens=-4, completion_tokens="2"), {}))
    endpoint = quickly(url)
    written = endpoint.complete("hello", 9)
    assert (written.read, written.made) == (endpoint.count("hello"), 9)


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "host/v1", "http://user@host/v1", "http://host/v1?key=1", "http://host/v1#m", ""]
)
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(PacelineError, match="http://HOST/v1"):
        Endpoint(url, "m")


def test_endpoints_do_not_tell_costs_and_keys_are_checked():
    with pytest.raises(PacelineError, match="does not tell"):
        Endpoint("http://host/v1", "m").nats("a", ["b"])
    with pytest.raises(PacelineError, match="key"):
        Endpoint("http://host/v1", "m", "line\nbreak")


def test_the_key_comes_from_the_environment(served, monkeypatch):
    url, answers, asked = served
    answers.append((200, chat("yes"), {}))
    monkeypatch.setenv("PACELINE_API_KEY", "mine")
    model = text_model(f"{url}#some/model")
    assert isinstance(model, Endpoint) and model.complete("?", 1).text == "yes"
    assert asked[0][1]["model"] == "some/model" and asked[0][2] == "Bearer mine"
