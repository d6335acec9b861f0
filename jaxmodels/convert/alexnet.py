"""AlexNet as torchvision holds it."""

from __future__ import annotations

from jaxmodels.convert.family import Weight, conv, dense, flattened, state_dict
from jaxmodels.models.alexnet import AlexNet


def _weights(model: AlexNet) -> list[Weight]:
    found, index = [], 0  # in their list of layers, with activations and pooling
    for i in range(len(model.channels)):
        found += conv(f"conv_{i + 1}", f"features.{index}", bias=True)
        index += 3 if i in model.pooled else 2
    for i in range(len(model.hidden)):
        theirs = f"classifier.{3 * i + 1}"
        found += flattened("dense_0", theirs, model.final) if i == 0 else dense(f"dense_{i}", theirs)
    return found + dense("head", f"classifier.{3 * len(model.hidden)}") if model.classes else found


FAMILIES = (state_dict(_weights, (AlexNet,)),)
