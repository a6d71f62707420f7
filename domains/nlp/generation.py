"""Text from a language model: prompts of any lengths, drawn token by token, in memory that does not grow with the text.

    result = generate(model, "def ", tokenizer, max_new_tokens=200, temperature=0.8, top_p=0.95)
    for step in stream(model, ["def ", "class "], tokenizer): print(step.text[0], end="", flush=True)

A row's text depends on its prompt, its number and the seed, not on how the prompts are cut or padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.linear import applied
from .replay import Replay, replayed
from .sampling import Sampling
from .states import join_rows, take_rows
from .text_stream import TextStream, Tokenizer

# one prompt; arrays of NumPy's, nested lists and bytes are taken too
Prompt = str | bytes | Sequence[int] | Tensor


@dataclass(frozen=True, kw_only=True)
class Options(Sampling):
    """How a text goes on: Sampling's options, and

    Args:
        max_new_tokens: tokens drawn at most; None: no limit (for `stream`).
        stop: strings that end a text; what is returned ends before them.
        end_token: the token that ends a text; None: the tokenizer's; -1: none does.
        seed: the same seed draws the same text; row i draws with seed + i.
        chunk: tokens of a prompt that are read at a time.
    """

    max_new_tokens: int | None = 256
    stop: str | Sequence[str] = ()
    end_token: int | None = None
    seed: int = 0
    chunk: int = 1024

    def __post_init__(self):
        super().__post_init__()
        if self.chunk < 1:
            raise UserError("chunk is a number of tokens", given=f"chunk={self.chunk}", allowed="1 or more")
        if self.max_new_tokens is not None and self.max_new_tokens < 0:
            raise UserError(
                "no such number of tokens", given=f"max_new_tokens={self.max_new_tokens}", allowed="0 or more"
            )


class Step(NamedTuple):
    """One token of every row: the token, None where the row has ended, and the text that became certain with it."""

    tokens: list[int | None]
    text: list[str]


@dataclass
class Generation:
    """What `generate` returns, an entry a row.

    Attributes:
        texts: the new text; "" without a tokenizer. tokens: the new tokens, an end token or a stop string's included.
        reasons: why it ended: "stop" (a stop string), "end" (the end token) or "length".
        states: one a layer, after prompt and new tokens: `generate(model, more, states=result.states)` goes on. None
            unless asked for.
    """

    texts: list[str]
    tokens: list[list[int]]
    reasons: list[str | None]
    states: list | None = None


def generate(
    model: nn.Module,
    prompts: Prompt | Sequence[Prompt],
    tokenizer: Tokenizer | None = None,
    *,
    states: Sequence | None = None,
    return_states: bool = False,
    stream: Callable[[Step], object] | None = None,
    **options,
) -> Generation:
    """Continue prompts.

    Args:
        model: a LanguageModel.
        prompts: one or several, texts or token numbers; a prompt without a token begins after the end token.
        tokenizer: for texts; prompts of token numbers can do without.
        states: where an earlier call ended: the prompts go on from there, one a row.
        return_states: whether to say where this one ends.
        stream: called with every Step as it is made.
        options: see Options.

    Raises:
        UserError: a text without a tokenizer, an option out of range, states of another number of rows.
    """
    run = _Run(model, prompts, tokenizer, states, Options(**options), keep=return_states)
    if run.options.max_new_tokens is None:
        raise UserError("a text without end is only for stream()", given="max_new_tokens=None", allowed="a number")
    texts, tokens = [[] for _ in run.prompts], [[] for _ in run.prompts]
    for step in run:
        for row, (token, text) in enumerate(zip(*step, strict=True)):
            texts[row].append(text)
            if token is not None:
                tokens[row].append(token)
        if stream is not None:
            stream(step)
    final = run.final_states() if return_states else None
    return Generation(["".join(each) for each in texts], tokens, run.reasons, final)


def stream(
    model: nn.Module,
    prompts: Prompt | Sequence[Prompt],
    tokenizer: Tokenizer | None = None,
    *,
    states: Sequence | None = None,
    **options,
) -> Iterator[Step]:
    """The steps of `generate`, one by one, as they are made; arguments as there."""
    return iter(_Run(model, prompts, tokenizer, states, Options(**options)))


@dataclass
class _Run:
    """One generation: what it was given, and where each row stands."""

    model: nn.Module
    given: Prompt | Sequence[Prompt]
    tokenizer: Tokenizer | None
    states: Sequence | None
    options: Options
    keep: bool = False
    kept: dict[int, list] = field(default_factory=dict)
    replay: Replay | None = None
    graphs: bool = True  # until it turns out that this model's steps are none

    def __post_init__(self):
        self.end = self.options.end_token
        if self.end is None:
            self.end = getattr(self.tokenizer, "end", None)
        self.stop = [self.options.stop] if isinstance(self.options.stop, str) else list(self.options.stop)
        if any(self.stop) and self.tokenizer is None:
            raise UserError("stop strings need a tokenizer", given=f"stop={self.stop}", do="give tokenizer=...")
        given = _plain(self.given)
        if isinstance(given, Number):
            raise UserError("a prompt is a text or token numbers", given=given, allowed="a list of them")
        alone = isinstance(given, str) or (len(given) > 0 and isinstance(given[0], Number))
        self.prompts = [self._tokens(each) for each in ([given] if alone else given)]
        if not self.prompts:
            raise UserError("nothing to go on from", given="no prompts", allowed="one or more")
        rows = len(self.prompts)
        self.draws = [torch.Generator().manual_seed(self.options.seed + row) for row in range(rows)]
        self.reasons: list[str | None] = [None] * rows
        known = self.tokenizer is not None
        self.streams = [TextStream(self.tokenizer, each, self.stop) if known else None for each in self.prompts]
        self.device = next(self.model.parameters()).device
        self.size = self.model.vocab_size if not known else min(self.model.vocab_size, self.tokenizer.vocab_size)

    def __iter__(self) -> Iterator[Step]:
        training = self.model.training
        self.model.eval()
        try:
            yield from self._steps()
        finally:
            self.model.train(training)

    def final_states(self) -> list:
        """The states after each row's last token."""
        return join_rows([self.kept[row] for row in range(len(self.prompts))])

    def _steps(self) -> Iterator[Step]:
        seen = self._seen() if self.options.repetition_penalty != 1.0 else None
        scores, count = self._read(), 0
        while count != self.options.max_new_tokens and None in self.reasons:
            count += 1
            with torch.inference_mode():
                tokens = self.options.choose(scores[:, : self.size], seen, self._draw())
                if seen is not None:
                    seen[torch.arange(len(seen), device=seen.device), tokens] = True
            numbers = tokens.tolist()
            step, ended = self._say(numbers, last=count == self.options.max_new_tokens)
            yield step
            if None in self.reasons or self.keep:
                with torch.inference_mode():
                    scores = self._next(tokens[:, None])
            self._keep(ended)
        if not count:
            self._keep(range(len(self.prompts)))

    def _next(self, token: Tensor) -> Tensor:
        """Scores after one more token a row, (batch, 1): the first time step by step, on a card then as a CUDA graph."""
        if self.replay is not None:
            return self.replay(token)
        before = self.states
        scores, self.states = self.model(token, states=before)
        self.replay = replayed(self.model, token, before, self.states) if self.graphs else None
        if self.replay is None:
            self.graphs = False
        else:
            self.states = self.replay.states
        return scores[:, -1]

    def _tokens(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise UserError("a text needs a tokenizer", given=repr(prompt[:40]), do="give tokenizer=...")
            prompt = self.tokenizer.encode(prompt)
        odd = next((each for each in prompt if not isinstance(each, int) or isinstance(each, bool)), None)
        if odd is not None:
            raise UserError("a prompt is a text or token numbers", given=repr(odd)[:60], allowed="whole numbers")
        if not prompt:
            begin = self.options.end_token if self.tokenizer is None else getattr(self.tokenizer, "end", None)
            if begin is None or begin < 0:
                raise UserError("an empty prompt", given="", allowed="a token, or a tokenizer with an end token")
            prompt = [begin]
        wrong = next((each for each in prompt if not 0 <= each < self.model.vocab_size), None)
        if wrong is not None:
            raise UserError("this token does not exist", given=wrong, allowed=f"0 to {self.model.vocab_size - 1}")
        return prompt

    def _draw(self) -> Tensor:
        return torch.cat([torch.rand(1, generator=each, dtype=torch.float64) for each in self.draws])

    def _seen(self) -> Tensor:
        seen = torch.zeros(len(self.prompts), self.size, dtype=torch.bool)
        for row, prompt in enumerate(self.prompts):
            seen[row, [each for each in prompt if each < self.size]] = True
        return seen.to(self.device)

    def _read(self) -> Tensor:
        """Reads the prompts in pieces, padded on the left; scores of the next token, (batch, vocabulary)."""
        longest = max(map(len, self.prompts))
        ids = torch.zeros(len(self.prompts), longest, dtype=torch.int64)
        seq_idx = torch.full(ids.shape, -1, dtype=torch.int32)
        for row, prompt in enumerate(self.prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            seq_idx[row, longest - len(prompt) :] = 0
        padded = bool((seq_idx < 0).any())
        with torch.inference_mode():
            for piece, number in zip(
                ids.to(self.device).split(self.options.chunk, 1), seq_idx.to(self.device).split(self.options.chunk, 1),
                strict=True,
            ):  # fmt: skip
                hidden, self.states = self.model.hidden(piece, self.states, number if padded else None)
            return applied(self.model.lm_head, hidden[:, -1])

    def _say(self, tokens: list[int], last: bool) -> tuple[Step, list[int]]:
        """The step of these tokens, and the rows that it ends."""
        said, texts, ended = [], [], []
        for row, token in enumerate(tokens):
            if self.reasons[row] is not None:
                said.append(None)
                texts.append("")
                continue
            line = self.streams[row]
            text = line.feed(token) if line is not None and token != self.end else ""
            if token == self.end:
                self.reasons[row] = "end"
            elif line is not None and line.stopped:
                self.reasons[row] = "stop"
            elif last:
                self.reasons[row] = "length"
            if self.reasons[row] is not None:
                ended.append(row)
                text += line.finish() if line is not None else ""
            said.append(token)
            texts.append(text)
        return Step(said, texts), ended

    def _keep(self, rows: Sequence[int]) -> None:
        if self.keep:
            for row in rows:
                self.kept[row] = take_rows(self.states, [row])


def _plain(prompt: Any) -> Any:
    """A prompt or several as texts and lists of numbers, whatever arrays they come in."""
    if isinstance(prompt, bytes | bytearray):
        try:
            return prompt.decode()
        except UnicodeDecodeError as error:
            raise UserError("a prompt of bytes is text in UTF-8", given=str(error)) from error
    if hasattr(prompt, "tolist"):  # tensors, NumPy's arrays and numbers
        return _plain(prompt.tolist())
    if isinstance(prompt, str | Number):
        return prompt
    if not isinstance(prompt, Iterable):
        raise UserError("a prompt is a text or token numbers", given=type(prompt).__name__)
    return [_plain(each) for each in prompt]
