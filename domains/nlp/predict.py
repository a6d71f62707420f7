"""What a language model writes, and the classes of texts: `predict.py ckpt=<run> prompt="def "`; in memory `write`, `classify`."""

from __future__ import annotations

import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...core.errors import UserError
from ...core.explanation import check_method
from ...core.pictures import save_figure
from ...core.ranges import Count, Mass, Positive, Seed, Share, Size, Weight, checked
from ..classification import Classified, likeliest, write_table
from ..trained import Answer, Trained
from .explanation import explain_class, explain_next_token
from .generation import Generation, generate, stream

if TYPE_CHECKING:
    from torch import Tensor


@checked
def predict(
    run: Trained,
    prompt: str = "",
    input: str | None = None,
    output: str | None = None,
    explain: str | None = None,
    max_new_tokens: Size | None = 400,
    temperature: Weight = 0.8,
    top_p: Mass = 0.95,
    top_k: Count = 0,
    min_p: Share = 0.0,
    repetition_penalty: Positive = 1.0,
    stop: str = "",
    seed: Seed = 0,
    top: Size = 5,
    batch_size: Size = 16,
    tokenizer: str | None = None,
) -> Answer:
    r"""Goes on with a text, which appears as it is made, or names its class; for a file, with every text in it.

    Args:
        run: a trained language model or text classifier.
        prompt: the text.
        input: a file of texts, one a line, or .jsonl with "prompt" or "text" in each line. Of a language model the answers are
            a .jsonl of the lines with "text" (or "answer", where they have a text) and "reason"; of a classifier a .csv.
        output: the file of answers; None: beside the input.
        explain: one of core.explanation.METHODS: draws what the answer to the prompt rests on.
        max_new_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed: see generation.Options.
        stop: a text that ends what is written; \n and \t in it are a line's end and a tab.
        top: classes named of each text.
        batch_size: texts of a file at a time.
        tokenizer: of a published model alone, which is loaded with it.

    Raises:
        UserError: the run answers no texts, the file cannot be read, options that do not go together.
    """
    how = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "stop": stop, "seed": seed,
    }  # fmt: skip
    classifies = _classifies(run)
    if tokenizer is not None and run.task is not None:
        raise UserError("the run has its own tokenizer", given=f"tokenizer={tokenizer}", do="leave tokenizer= out")
    if classifies or explain is not None:
        why = "a picture shows the next token alone" if explain is not None else "a classifier writes no text"
        _refuse_changes(how, why)
    if input is None and output is not None:
        raise UserError("output= is for the answers to a file", given=f"output={output}", do="input=<file>")
    if input is not None and (prompt or explain is not None):
        raise UserError("a file is answered without prompt= and explain=", given=f"input={input}", do="leave them out")
    if explain is not None:
        return _explain(run, prompt, explain, classifies)
    how["stop"] = stop.replace("\\n", "\n").replace("\\t", "\t")
    if input is not None:
        path = Path(input).expanduser()
        target = (
            path.with_name(f"{path.stem}_answers.{'csv' if classifies else 'jsonl'}")
            if output is None
            else Path(output).expanduser()
        )
        rows = read_texts(path)
        if classifies:
            return _classify_file(run, rows, target, top, batch_size)
        return _answer_file(run, rows, target, how, batch_size)
    if classifies:
        if not prompt:
            raise UserError("which text?", allowed="a text, or a file of texts", do='prompt="..." or input=<file>')
        return Answer([f"  {classify(run, [prompt], top)[0].line}"])
    go_on(run, prompt, **how)
    return Answer()


def go_on(run: Trained, prompt: str, write: Callable[[str], Any] | None = None, **options: Any) -> str:
    """Writes the prompt and what a language model makes of it, piece by piece, as it is made.

    Args:
        run: a trained language model.
        prompt: a text; "": the beginning of a document.
        write: where the pieces go; None: standard output, at once.
        options: see generation.Options; without limit where max_new_tokens is None.

    Returns:
        the new text.
    """
    write, said = write or _show, []
    write(prompt)
    for step in stream(run.model, prompt, run.describe["tokenizer"], **options):
        if step.text[0]:
            write(step.text[0])
            said.append(step.text[0])
    write("\n")
    return "".join(said)


def write(run: Trained, prompts: str | Sequence[str], **options: Any) -> Generation:
    """What a trained language model makes of prompts; options and result as of generation.generate."""
    return generate(run.model, prompts, run.describe["tokenizer"], **options)


def classify(run: Trained, texts: Sequence[str], top: int = 5, batch_size: int = 16) -> list[Classified]:
    """The likeliest classes of texts; of a longer text only as many tokens are read as in training.

    Args:
        run: a trained text classifier.
        texts: any number.
        top: classes named of each.
        batch_size: texts at a time.
    """
    found = []
    for start in range(0, len(texts), batch_size):
        ids, seq_idx = _padded(run, texts[start : start + batch_size])
        with torch.inference_mode():
            found += likeliest(run.model(ids, seq_idx), run.describe["classes"], top)
    return found


def read_texts(path: Path) -> list[dict[str, Any]]:
    """The texts of a file, each a dict with "prompt": every line that is not empty, or of a .jsonl its "prompt" or "text".

    Raises:
        UserError: no such file, no text in it, or a line that is not as it should be.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the texts: {error}", given=f"input={path}", allowed="a file of text in UTF-8"
        ) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            rows.append(_json_line(path, number, line) if path.suffix == ".jsonl" else {"prompt": line})
    if not rows:
        raise UserError("there is no text in this file", given=f"input={path}", allowed="one text a line")
    return rows


def _json_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number} is no JSON", given=str(error)) from error
    text = row.get("prompt", row.get("text")) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise UserError(f'{path}, line {number} holds no "prompt"', given=line[:80], allowed='{"prompt": "..."}')
    return row if "prompt" in row else {**row, "prompt": text}


def _classifies(run: Trained) -> bool:
    """Whether a run names classes; False: it goes on with texts."""
    task = run.describe.get("task")
    if task == "classification":
        return True
    if task != "language_modelling" or run.describe.get("tokenizer") is None:
        raise UserError(
            "this run answers no texts", given=f"data={run.describe.get('name')}, for {str(task).replace('_', ' ')}",
            allowed="language models and text classifiers", do="python eval.py ckpt=... tests it",
        )  # fmt: skip
    return False


def _refuse_changes(options: Mapping[str, Any], why: str) -> None:
    usual = inspect.signature(predict).parameters
    changed = [f"{name}={value}" for name, value in options.items() if value != usual[name].default]
    if changed:
        raise UserError(f"this has no effect here: {why}", given=" ".join(changed), do="leave it out")


def _explain(run: Trained, prompt: str, method: str, classifies: bool) -> Answer:
    check_method(method, "explain")
    tokenizer, path = run.describe["tokenizer"], run.folder / f"explained_{method}.png"
    if classifies:
        length = run.describe.get("length")
        figure, said = explain_class(run.model, tokenizer, prompt, run.describe["classes"], method, length)
    else:
        figure, said = explain_next_token(run.model, tokenizer, prompt, method)
    save_figure(figure, path)
    return Answer([f"  answer   {said}"], [path])


def _answer_file(
    run: Trained, rows: Sequence[Mapping[str, Any]], target: Path, how: Mapping[str, Any], batch_size: int
) -> Answer:
    """Each row as it was read, with what the model makes of its prompt; written a batch at a time."""
    if how["max_new_tokens"] is None:
        raise UserError("texts of a file have an end", given="max_new_tokens=null", do="max_new_tokens=<number>")
    try:
        file = open(target, "w", encoding="utf-8", errors="replace")  # noqa: SIM115  closed below
    except OSError as error:
        raise _not_written(target, error) from error
    with file:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            # A row's text depends on its number and the seed, not on how many are answered at a time.
            made = write(run, [row["prompt"] for row in part], **{**how, "seed": how["seed"] + start})
            for row, text, reason in zip(part, made.texts, made.reasons, strict=True):
                name = "answer" if "text" in row else "text"
                file.write(json.dumps({**row, name: text, "reason": reason}, ensure_ascii=False) + "\n")
            file.flush()
    return Answer([f"  {len(rows):,} prompts answered"], [target])


def _classify_file(run: Trained, rows: Sequence[Mapping[str, Any]], target: Path, top: int, batch_size: int) -> Answer:
    found = classify(run, [row["prompt"] for row in rows], top, batch_size)
    try:
        write_table(target, "text", [(row["prompt"], answer) for row, answer in zip(rows, found, strict=True)])
    except OSError as error:
        raise _not_written(target, error) from error
    counts = Counter(each.names[0] for each in found)
    return Answer([f"  {count:7,}  {name}" for name, count in counts.most_common()], [target])


def _not_written(target: Path, error: OSError) -> UserError:
    return UserError(
        f"this file cannot be written: {error.strerror}", given=f"output={target}", do="output=<another file>"
    )


def _padded(run: Trained, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token numbers int64 and seq_idx int32, negative on padding, (batch, longest), on the run's device."""
    tokenizer, length = run.describe["tokenizer"], run.describe.get("length")
    rows = [tokenizer.encode(text)[:length] for text in texts]
    longest = max(1, *map(len, rows))
    ids = torch.full((len(rows), longest), tokenizer.end)
    seq_idx = torch.full((len(rows), longest), -1, dtype=torch.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
        seq_idx[number, : len(row)] = 0
    return ids.to(run.device), seq_idx.to(run.device)


def _show(text: str) -> None:
    # Half a surrogate or a letter that the terminal's encoding lacks must not end the text.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
