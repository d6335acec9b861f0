"""A small vision transformer on ImageNet, trained as DeiT-S without a teacher (arXiv:2012.12877, table 9).

jaxmodels train experiments/imagenet_vit_s16.py --precision bfloat16
    (JAXMODELS_DATA names the folder that holds imagenet/train/<class>/ and imagenet/val/<class>/)

Published: 79.8% top-1 accuracy on the 50,000 images to validate. Left out: repeated augmentation. Not run
here; made for an accelerator.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data import locate
from jaxmodels.data.augment import erase, flip, rand_augment
from jaxmodels.data.formats.images import each, image_folder
from jaxmodels.data.mixup import Mixed
from jaxmodels.models.vit import vit_s16
from jaxmodels.tasks.classify import classify

IMAGES = 1_281_167


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 300
    batch: int = 1024
    size: int = 224
    classes: int = 1000
    lr: float = 5e-4  # peak, for each 512 images of a batch
    decay: float = 0.05
    drop_path: float = 0.1
    workers: int = 0  # processes that decode
    data: str = ""  # folder with train and val; by default imagenet in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    epoch = -(-IMAGES // config.batch)
    steps = config.epochs * epoch
    rate = optim.warmup_cosine(config.lr * config.batch / 512, warmup=5 * epoch, steps=steps, end=0.01)
    folder = locate.folder("imagenet", config.data or None)
    options = {"size": config.size, "batch": config.batch, "workers": config.workers}
    changes = each([flip, rand_augment(2, 9.0), erase(0.25)])
    train = image_folder(folder / "train", seed=config.seed, area=(0.08, 1.0), augment=changes, **options)
    model = vit_s16(config.classes, size=config.size, drop_path=config.drop_path)
    return Experiment(
        task=classify(model, smoothing=0.1),
        rules=model.rules(),
        optimizer=optim.adamw(rate, weight_decay=config.decay),
        train=Mixed(train, mixup=0.8, cutmix=1.0),
        evals={"val": image_folder(folder / "val", **options)},
        other_data=lambda path: image_folder(path, classes=train.classes, **options),
        steps=steps,
        eval_every=epoch,
        checkpoint_every=epoch,
        seed=config.seed,
        target=Target("accuracy", 0.798, "higher", split="val", source="published"),
        baselines=lambda: {"published": {"val/accuracy": 0.798}},
    )
