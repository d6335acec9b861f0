"""A huge vision transformer on ImageNet from random parameters, the baseline of arXiv:2111.06377 (table 11).

jaxmodels train experiments/imagenet_vit_h14.py --precision bfloat16
    (JAXMODELS_DATA names the folder that holds imagenet/train/<class>/ and imagenet/val/<class>/)
jaxmodels plan experiments/imagenet_vit_h14.py --on v5e-64

Published: 83.1% top-1 accuracy on the 50,000 images to validate. Not run here; made for accelerators.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data import locate
from jaxmodels.data.augment import flip, rand_augment
from jaxmodels.data.formats.images import each, image_folder
from jaxmodels.data.mixup import Mixed
from jaxmodels.models.vit import vit_h14
from jaxmodels.tasks.classify import classify

IMAGES = 1_281_167


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 200
    batch: int = 4096
    size: int = 224
    classes: int = 1000
    lr: float = 1e-4  # peak, for each 256 images of a batch
    decay: float = 0.3
    drop_path: float = 0.2
    workers: int = 0  # processes that decode
    data: str = ""  # folder with train and val; by default imagenet in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    epoch = -(-IMAGES // config.batch)
    steps = config.epochs * epoch
    rate = optim.warmup_cosine(config.lr * config.batch / 256, warmup=20 * epoch, steps=steps)
    folder = locate.folder("imagenet", config.data or None)
    options = {"size": config.size, "batch": config.batch, "workers": config.workers}
    changes = each([flip, rand_augment(2, 9.0)])
    model = vit_h14(config.classes, size=config.size, drop_path=config.drop_path, remat="full")
    train = image_folder(folder / "train", seed=config.seed, area=(0.08, 1.0), augment=changes, **options)
    return Experiment(
        task=classify(model, smoothing=0.1),
        optimizer=optim.with_ema(optim.adamw(rate, b2=0.95, weight_decay=config.decay), 0.9999),
        train=Mixed(train, mixup=0.8, cutmix=1.0),
        evals={"val": image_folder(folder / "val", **options)},
        other_data=lambda path: image_folder(path, classes=train.classes, **options),
        steps=steps,
        rules=model.rules(),
        eval_every=epoch,
        checkpoint_every=epoch,
        seed=config.seed,
        target=Target("accuracy", 0.831, "higher", split="val", source="published"),
        baselines=lambda: {"published": {"val/accuracy": 0.831}},
    )
