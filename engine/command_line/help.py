"""--help: what may be typed, from the config files themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from . import signature
from .comments import explanations
from .compose import FREE, accepted_keys, compose
from .config import Config
from .convert import describe, typed
from .options import Options

HIDDEN = ("_target_", "name", "domains", "choose")
OFFERED = ("describe", "scan", "model")  # what a run gives, not the user

TRAIN = """Train a model.

  python train.py [group=option ...] [key=value ...]

  python train.py                                            Vim on digits, nothing to download
  python train.py data=cifar10 scan=local scan.window=4      another data set, another scan
  python train.py model.size=tiny trainer.epochs=20          any key of the configuration
  python train.py domain=nlp                                 a language model on Python's documentation
  python train.py domain=nlp data=text_file data.files=book.txt data.tokenizer=bpe
  python train.py domain=nlp data=trec                       text classification; data.root=FOLDER or a download
  python train.py experiments=induction_heads                a task of the Mamba paper
  python train.py resume=runs/vision/vim/<run>               go on with a run
  python train.py domain=nlp init=runs/nlp/mamba_lm/<run>    begin with the weights of another run
  python train.py -m scan=raster,cross seed=0,1              one run for each combination
  python train.py debug=fast                                 one step of everything

  --help model=mamba_lm domain=nlp     the keys that this choice has
  --list [models|data|scans|experiments] [domain] [name]   what may be chosen; * in a name stands for any letters
  --cfg                  print the whole configuration with its comments and stop
  -m                     values with commas mean several runs
"""

OWN = """  --config-dir=<folder>  a folder of your own, laid out like configs/: mine/model/my_net.yaml adds model=my_net
  --allow=<package>      let _target_ in these files name things in your own package, which must be importable
"""

EVALUATE = """Test the weights of a run.

  python eval.py ckpt=<run folder or checkpoint> [data=...] [data.key=value ...]

  python eval.py ckpt=runs/vision/vim/<run>                  its own test data
  python eval.py ckpt=runs/vision/vim/<run> data=image_folder data.root=photos
  python eval.py ckpt=runs/nlp/mamba_lm/<run> data=text_file data.files=book.txt
  python eval.py ckpt=runs/nlp/mamba_lm/<run> 'data.test_lengths=[256,65536,1048576]'
"""

PREDICT = """Let a language model go on with a text, or show what a model's answers rest on.

  python predict.py ckpt=<run folder, checkpoint or published model> prompt="..." [key=value ...]

  python predict.py ckpt=runs/nlp/mamba_lm/<run> prompt="def "
  python predict.py ckpt=runs/nlp/mamba_lm/<run> temperature=0 stop="\\n\\n"
  python predict.py ckpt=runs/nlp/mamba_lm/<run> max_new_tokens=null       until Ctrl-C
  python predict.py ckpt=state-spaces/mamba-130m prompt="Mamba is"         from the Hugging Face hub
  python predict.py ckpt=my/folder tokenizer=my/tokenizer.json             config.json and weights

  prompt               the text to go on with; nothing: the beginning of a document
  max_new_tokens=400   tokens at most; null: no limit
  temperature=0.8      0: always the most probable token
  top_p=0.95           only the most probable tokens that together have this probability
  top_k=0              only so many of the most probable tokens; 0: all
  min_p=0.0            only tokens at least this probable, against the most probable one
  repetition_penalty=1.0   above 1: tokens that stand in the text become less probable
  stop=                a text that ends it; \\n is the end of a line
  seed=0               the same seed, the same text
  tokenizer=           of a published model: a tokenizer.json other than its own
  trainer.threads=2    CPU threads; trainer.accelerator=cpu: not on the GPU

What answers rest on, as a picture in the run's folder, of a published model in this one; with ckpt, prompt, tokenizer and the
trainer's keys only:

  python predict.py ckpt=runs/nlp/mamba_lm/<run> prompt="def f(x):" explain=attribution   tokens, for the next one
  python predict.py ckpt=runs/vision/vim/<run> explain=attribution                        test images, for their class

  explain=attribution  what the answer's score rises with; rollout: what flows from token to token, whatever the answer;
                       raw: the mean over all layers
"""


def help_text(options: Options, job: str) -> str:
    """The help of a job, with every group and its options."""
    if job != "train":
        return {"evaluate": EVALUATE, "predict": PREDICT}[job] + "\n" + OWN
    groups = options.groups()
    lines = [TRAIN + OWN, "Groups and their options", ""]
    for group in sorted(groups.files):
        names = groups.options(group)
        if group != "recipe":
            lines.append(f"  {group:<12} {', '.join(names) or 'nothing yet'}")
    values = compose(options.arguments, groups, options.allow).plain()
    said = explanations(values, groups)
    lines += ["", "Keys, as they are with what was typed: value, what it may be, what it means", ""]
    rows = [(f"{key}={typed(value)}", kind, said.get(key, "")) for key, value, kind in keys(values)]
    lines += [f"  {key:<38} {kind:<42} {text}".rstrip() for key, kind, text in rows]
    return "\n".join(lines) + "\n"


def keys(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Every key that may be typed with a configuration: its dotted name, its value, and what it may be, in words."""
    hints = get_type_hints(Config, include_extras=True)
    for name, value in values.items():
        if name in FREE:
            found = signature.of(str(value["_target_"]))
            kinds = {} if found is None else found.parameters
            more = {key: None for key in sorted(accepted_keys(value) or ()) if key not in value and key not in OFFERED}
            for key, inner in {**value, **more}.items():
                if key not in HIDDEN:
                    yield f"{name}.{key}", inner, _words(kinds.get(key))
        elif isinstance(value, Mapping):
            kinds = get_type_hints(hints[name], include_extras=True) if hasattr(hints[name], "__mro__") else {}
            for key, inner in value.items():
                if key not in HIDDEN:
                    yield f"{name}.{key}", inner, _words(kinds.get(key))
        elif name != "domain" and not isinstance(hints[name], type):
            yield name, value, _words(hints[name])


def _words(kind: Any) -> str:
    return "" if kind in (None, Any, object) else describe(kind)
