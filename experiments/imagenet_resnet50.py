"""ResNet-50 on ImageNet, trained as arXiv:1706.02677 does it: 90 epochs, batches of 1,024, a warm-up of 5.

jaxmodels train experiments/imagenet_resnet50.py --precision bfloat16
    (JAXMODELS_DATA names the folder that holds imagenet/train/<class>/ and imagenet/val/<class>/)
jaxmodels evaluate experiments/imagenet_resnet50.py --weights resnet50.pth   (torchvision's)
jaxmodels evaluate runs/imagenet_resnet50 --data FOLDER   (other images, of some of the same classes)

Published: 76.3% top-1 accuracy on the 50,000 images to validate. Not run here; made for an accelerator.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.convert.load import load_weights
from jaxmodels.data import locate
from jaxmodels.data.augment import color, flip
from jaxmodels.data.formats.images import each, image_folder
from jaxmodels.data.normalize import IMAGENET
from jaxmodels.models.resnet import resnet50
from jaxmodels.tasks.classify import classify

IMAGES = 1_281_167


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 90
    batch: int = 1024
    size: int = 224
    classes: int = 1000
    lr: float = 0.1  # peak, for each 256 images of a batch
    decay: float = 1e-4
    workers: int = 0  # processes that decode
    data: str = ""  # folder with train and val; by default imagenet in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    epoch = -(-IMAGES // config.batch)
    steps = config.epochs * epoch
    rate = optim.warmup_cosine(config.lr * config.batch / 256, warmup=5 * epoch, steps=steps)
    folder = locate.folder("imagenet", config.data or None)
    options = {"size": config.size, "batch": config.batch, "workers": config.workers, "normalize": IMAGENET}
    train = image_folder(
        folder / "train",
        seed=config.seed,
        area=(0.08, 1.0),
        augment=each([flip, color(0.4, 0.4, 0.4)]),
        **options,
    )
    model = resnet50(config.classes)
    return Experiment(
        task=classify(model, smoothing=0.1),
        optimizer=optim.sgd(rate, momentum=0.9, nesterov=True, weight_decay=config.decay),
        train=train,
        evals={"val": image_folder(folder / "val", **options)},
        other_data=lambda path: image_folder(path, classes=train.classes, **options),
        weights=lambda path: load_weights(model, path),
        steps=steps,
        eval_every=epoch,
        checkpoint_every=epoch,
        seed=config.seed,
        baselines=lambda: {"published": {"val/accuracy": 0.763}},
        target=Target("accuracy", 0.763, "higher", split="val", source="published, arXiv:1706.02677"),
    )
