"""GoogLeNet and Inception v3 in torchvision's layout, against PyTorch's, written here."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from foreign import count, logits, ours, random_images, shaken, shapes

from jaxmodels.convert import inception as convert_inception
from jaxmodels.convert.load import load_weights
from jaxmodels.models.inception import GoogLeNet, google, googlenet, inception_v3

torch = pytest.importorskip("torch")
nn = torch.nn
pool = torch.nn.functional.avg_pool2d

K = 5


class Conv(nn.Module):
    def __init__(self, C, F, kernel=1, stride=1, padding=0):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(C, F, kernel, stride, padding, bias=False), nn.BatchNorm2d(F, eps=1e-3)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


def joined(x, *branches):
    return torch.cat([branch(x) for branch in branches], 1)


class Inception(nn.Module):
    """A block of GoogLeNet."""

    def __init__(self, C, one, narrow, three, narrower, five, pooled):
        super().__init__()
        self.branch1 = Conv(C, one)
        self.branch2 = nn.Sequential(Conv(C, narrow), Conv(narrow, three, 3, 1, 1))
        self.branch3 = nn.Sequential(Conv(C, narrower), Conv(narrower, five, 3, 1, 1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), Conv(C, pooled))
        self.out = one + three + five + pooled

    def forward(self, x):
        return joined(x, self.branch1, self.branch2, self.branch3, self.branch4)


class Auxiliary(nn.Module):
    def __init__(self, C, classes):
        super().__init__()
        self.conv, self.fc1, self.fc2 = Conv(C, 128), nn.Linear(2048, 1024), nn.Linear(1024, classes)

    def forward(self, x):
        x = self.conv(nn.functional.adaptive_avg_pool2d(x, 4)).flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))


class Google(nn.Module):
    def __init__(self, stem, stages, classes):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            Conv(3, stem[0], 7, 2, 3),
            Conv(stem[0], stem[1]),
            Conv(stem[1], stem[2], 3, 1, 1),
        )
        C, self.names = stem[2], []
        for s, blocks in enumerate(stages, 3):
            for letter, sizes in zip("abcdef", blocks, strict=False):
                self.names.append(f"inception{s}{letter}")
                setattr(self, self.names[-1], Inception(C, *sizes))
                C = getattr(self, self.names[-1]).out
                if self.names[-1] in ("inception4a", "inception4d"):
                    setattr(self, "aux1" if letter == "a" else "aux2", Auxiliary(C, classes))
        self.fc = nn.Linear(C, classes)

    def heads(self, x):
        def halve(x, k=3):
            return nn.functional.max_pool2d(x, k, 2, ceil_mode=True)

        x, others = halve(self.conv3(self.conv2(halve(self.conv1(x))))), []
        for before, name in zip(["3", *(name[-2] for name in self.names)], self.names, strict=False):
            if name[-2] != before:
                x = halve(x, 2 if name[-2] == "5" else 3)
            x = getattr(self, name)(x)
            if name in ("inception4a", "inception4d"):
                others.append(getattr(self, "aux1" if name[-1] == "a" else "aux2")(x))
        return self.fc(x.mean((2, 3))), others

    def forward(self, x):
        return self.heads(x)[0]


SIZES = (((2, 3, 4, 2, 3, 2),), ((3, 2, 3, 2, 2, 3),) * 4, ((2, 2, 4, 3, 2, 2),))
SMALL = GoogLeNet(K, True, [[google(*sizes) for sizes in blocks] for blocks in SIZES], (4, 3, 5))


@pytest.mark.parametrize("size", [64, 75])
def test_googlenet_gives_all_the_logits_of_pytorch(size, tmp_path):
    """At 75 the poolings' windows reach over the edge."""
    theirs, images = shaken(Google((4, 3, 5), SIZES, K)), random_images(2, size, size, 3)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    found = load_weights(SMALL, tmp_path / "a.pth")
    variables = {"params": found.params, **found.extra}
    got, others = jax.jit(lambda v: SMALL.apply(v, images, method="with_auxiliary"))(variables)
    with torch.no_grad():
        want, want_others = theirs.heads(torch.tensor(images.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-4)
    for mine, other in zip(others, want_others, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-4, atol=1e-4)
    assert count(found.params) == sum(x.numel() for x in theirs.parameters())


def test_a_model_without_auxiliary_heads_leaves_theirs_out(tmp_path):
    theirs, images = shaken(Google((4, 3, 5), SIZES, K)), random_images(2, 64, 64, 3)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    found = load_weights(SMALL.clone(auxiliary=False), tmp_path / "a.pth")
    np.testing.assert_allclose(ours(found, images), logits(theirs, images), rtol=1e-4, atol=1e-4)


class Named(nn.Module):
    """Branches of convolutions in the names of torchvision's Inception v3.

    branches: each a list of (name, features, kernel[, stride]), or of two such that stand side by side.
    """

    def __init__(self, C, branches, pooled=None):
        super().__init__()
        self.branches, self.pooled, self.out = branches, pooled, 0
        for steps in branches:
            inner = C
            for step in steps:
                both = step if isinstance(step, list) else [step]
                for name, F, kernel, *stride in both:
                    k = (kernel, kernel) if isinstance(kernel, int) else kernel
                    pads = (0, 0) if stride else (k[0] // 2, k[1] // 2)
                    setattr(self, name, Conv(inner, F, k, *(stride or [1]), pads))
                inner = sum(part[1] for part in both)
            self.out += inner
        if pooled:
            self.branch_pool = Conv(C, pooled)
        self.out += pooled or C

    def forward(self, x):
        out = []
        for steps in self.branches:
            y = x
            for step in steps:
                y = joined(
                    y, *(getattr(self, part[0]) for part in (step if isinstance(step, list) else [step]))
                )
            out.append(y)
        out.append(self.branch_pool(pool(x, 3, 1, 1)) if self.pooled else nn.functional.max_pool2d(x, 3, 2))
        return torch.cat(out, 1)


def block_a(C, pooled):
    double = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return Named(
        C, [[("branch1x1", 64, 1)], [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)], double], pooled
    )


def block_b(C):
    double = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)]
    return Named(C, [[("branch3x3", 384, 3, 2)], double])


def block_c(C, n):
    seven = [("branch7x7_1", n, 1), ("branch7x7_2", n, (1, 7)), ("branch7x7_3", 192, (7, 1))]
    kernels = [(1, n), ((7, 1), n), ((1, 7), n), ((7, 1), n), ((1, 7), 192)]
    double = [(f"branch7x7dbl_{i}", F, k) for i, (k, F) in enumerate(kernels, 1)]
    return Named(C, [[("branch1x1", 192, 1)], seven, double], 192)


def block_d(C):
    kernels = [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)]
    long = [(f"branch7x7x3_{i}", *k) for i, k in enumerate(kernels, 1)]
    return Named(C, [[("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)], long])


def block_e(C):
    def pair(name):
        return [(f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))]

    double = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), pair("branch3x3dbl_3")]
    return Named(C, [[("branch1x1", 320, 1)], [("branch3x3_1", 384, 1), pair("branch3x3_2")], double], 192)


class V3(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, 2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80), Conv(80, 192, 3)
        C = 192
        blocks = {
            "5b": lambda C: block_a(C, 32),
            "5c": lambda C: block_a(C, 64),
            "5d": lambda C: block_a(C, 64),
        }
        blocks |= {"6a": block_b, "6b": lambda C: block_c(C, 128), "6c": lambda C: block_c(C, 160)}
        blocks |= {"6d": lambda C: block_c(C, 160), "6e": lambda C: block_c(C, 192)}
        blocks |= {"7a": block_d, "7b": block_e, "7c": block_e}
        for name, make in blocks.items():
            block = make(C)
            setattr(self, f"Mixed_{name}", block)
            C = block.out
        self.mixed = [f"Mixed_{name}" for name in blocks]
        self.AuxLogits = nn.Module()
        self.AuxLogits.conv0, self.AuxLogits.conv1 = Conv(768, 128), Conv(128, 768, 5)
        self.AuxLogits.fc, self.fc = nn.Linear(768, classes), nn.Linear(C, classes)

    def heads(self, x):
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(nn.functional.max_pool2d(x, 3, 2)))
        x = nn.functional.max_pool2d(x, 3, 2)
        for name in self.mixed:
            x = getattr(self, name)(x)
            if name == "Mixed_6e":
                aux = self.AuxLogits.conv1(self.AuxLogits.conv0(pool(x, 5, 3))).mean((2, 3))
        return self.fc(x.mean((2, 3))), self.AuxLogits.fc(aux)


def settled(module):
    """The module in evaluation, with random weights that keep the size of what goes through."""
    torch.manual_seed(0)
    for x in module.modules():
        if isinstance(x, nn.Conv2d):
            nn.init.kaiming_normal_(x.weight)
        if isinstance(x, nn.BatchNorm2d):
            for y in (x.weight, x.running_var):
                y.data.uniform_(0.8, 1.2)
            for y in (x.bias, x.running_mean):
                y.data.normal_(0, 0.1)
    return module.eval()


def test_inception_v3_gives_both_logits_of_pytorch(tmp_path):
    theirs, images = settled(V3(K)), random_images(1, 299, 299, 3)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    model = inception_v3(K, auxiliary=True)
    found = load_weights(model, tmp_path / "a.pth")
    variables = {"params": found.params, **found.extra}
    got, (other,) = jax.jit(lambda v: model.apply(v, images, method="with_auxiliary"))(variables)
    with torch.no_grad():
        want, aux = theirs.heads(torch.tensor(images.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(other, aux.numpy(), rtol=1e-4, atol=1e-4)
    assert count(found.params) == sum(x.numel() for x in theirs.parameters())
    family = convert_inception.FAMILIES[0]
    assert family.model(family.config(inception_v3(7))) == inception_v3(7)


@pytest.mark.parametrize(
    ("model", "size", "want"),
    [
        (googlenet(1000), 224, 6_624_904),
        (googlenet(1000, auxiliary=True), 224, 13_004_888),
        (inception_v3(1000), 299, 23_834_568),
        (inception_v3(1000, auxiliary=True), 299, 27_161_264),
    ],
    ids=["googlenet", "googlenet with auxiliary heads", "v3", "v3 with its auxiliary head"],
)
def test_the_published_sizes_have_the_published_number_of_parameters(model, size, want):
    assert count(shapes(model, 1, size, size, 3, method="with_auxiliary")) == want
