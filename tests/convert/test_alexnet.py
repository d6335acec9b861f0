"""AlexNet in torchvision's layout, against PyTorch's, written here."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from foreign import count, logits, ours, random_images, shaken

from jaxmodels.convert.load import load_weights
from jaxmodels.models.alexnet import AlexNet

torch = pytest.importorskip("torch")
nn = torch.nn


def theirs(C, hidden, classes):
    layers = [nn.Conv2d(3, C[0], 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(C[0], C[1], 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for a, b in pairwise(C[1:]):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
    module = nn.Sequential()
    module.features = nn.Sequential(*layers, nn.MaxPool2d(3, 2))
    module.middle = nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Flatten())
    dense = [
        nn.Dropout(),
        nn.Linear(36 * C[-1], hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
    ]
    module.classifier = nn.Sequential(*dense, nn.Linear(hidden, classes))
    return module


@pytest.mark.parametrize("size", [224, 127])
def test_a_state_dict_of_torchvision_gives_the_logits_of_pytorch(size, tmp_path):
    """At 127 the last map is 3 x 3 and brought to 6 x 6."""
    module, images = shaken(theirs((4, 5, 6, 3, 2), 7, 5)), random_images(2, size, size, 3)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    model = AlexNet(5, channels=(4, 5, 6, 3, 2), hidden=(7, 7))
    found = load_weights(model, tmp_path / "a.pth")
    np.testing.assert_allclose(ours(found, images), logits(module, images), rtol=1e-4, atol=1e-4)
    assert count(found.params) == sum(x.numel() for x in module.parameters())
