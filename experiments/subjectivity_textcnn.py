"""Kim's convolutional network from random embeddings on opinion and plot (arXiv:1408.5882, CNN-rand: 89.6).

All ten folds, with their mean:  python experiments/subjectivity_textcnn.py
One fold as a run:               jaxmodels train experiments/subjectivity_textcnn.py --fold 3
A sentence of your own:          jaxmodels predict runs/subjectivity_textcnn --text "a film to love"

Not measured yet: the sentences were not at hand.
"""

from dataclasses import dataclass

from jaxmodels import Display, Experiment, Target, optim, train
from jaxmodels.data.bucketing import Buckets
from jaxmodels.data.datasets.sentences import FOLDS, as_text, as_tokens, sentences
from jaxmodels.data.formats.text_input import text_example
from jaxmodels.models.textcnn import TextCNN
from jaxmodels.tasks.classify import classify, predictor

WORDS = 20_000
CLASSES = ("plot", "opinion")


@dataclass(frozen=True, kw_only=True)
class Config:
    fold: int = 0  # which tenth is held out
    seed: int = 0
    steps: int = 1000
    batch: int = 50
    lengths: tuple[int, ...] = (16, 32, 64)  # words of a batch: the smallest that holds its sentences
    lr: float = 1e-3
    weight_decay: float = 0.1
    dropout: float = 0.5


def build(config: Config) -> Experiment:
    def data(side, batch, seed=None):
        texts = sentences(
            "subjectivity", side, batch, seed, fold=config.fold, words=WORDS, length=config.lengths[-1]
        )
        return Buckets(texts, lengths=config.lengths)

    def read(text):
        return text_example(as_tokens(text, "subjectivity", fold=config.fold, words=WORDS), config.lengths)

    model = TextCNN(WORDS, 2, dropout=config.dropout)
    rate = optim.warmup_linear(config.lr, warmup=config.steps // 20, steps=config.steps)
    return Experiment(
        task=classify(model, inputs="inputs"),
        optimizer=optim.adamw(rate, weight_decay=config.weight_decay),
        train=data("train", config.batch, config.seed),
        evals={"held-out": data("held-out", 50)},
        steps=config.steps,
        seed=config.seed,
        display=Display(
            lambda words_T: as_text(words_T, "subjectivity", fold=config.fold, words=WORDS),
            lambda: CLASSES,
        ),
        predictor=predictor(model, CLASSES, read=read, inputs="inputs", input="text"),
        target=Target("accuracy", 0.896, "higher", split="held-out", source="published, arXiv:1408.5882"),
    )


def main() -> None:
    import numpy as np

    scores = []
    for fold in range(FOLDS):
        scores.append(train(build(Config(fold=fold))).metrics["held-out/accuracy"])
        print(f"fold {fold}: accuracy {scores[-1]:.4f}")
    print(f"mean {np.mean(scores):.4f}, standard deviation over folds {np.std(scores, ddof=1):.4f}")


if __name__ == "__main__":
    main()
