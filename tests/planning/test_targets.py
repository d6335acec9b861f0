from __future__ import annotations

import pytest

from jaxmodels.analysis.devices import DEVICES
from jaxmodels.planning.targets import shapes, target

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "name", "chips"),
    [
        ("v5p-512", "v5p:8x8x8", 512),
        ("v5p:8x8x8", "v5p:8x8x8", 512),
        ("V5P-4", "v5p:2x2x1", 4),
        ("v6e-256", "v6e:16x16", 256),
        ("2xv5p-256", "2xv5p:4x8x8", 512),
        ("h200-256", "h200-256", 256),
        ("h100-2", "h100-2", 2),
        ("gb200-72", "gb200-72", 72),
        ("cpu:8", "cpu:8", 8),
    ],
)
def test_a_name_counts_chips(text, name, chips):
    got = target(text)
    assert (got.name, got.chips) == (name, chips)


@pytest.mark.parametrize("name", ["v5p:8x8x8", "2xv5p:4x4x4", "v5e:4x8", "tpu7x:2x2x1", "h200-16", "cpu:3"])
def test_a_canonical_name_means_itself(name):
    assert target(name).name == name


def test_a_chip_that_jax_shows_as_two_devices_gives_each_half_the_memory():
    got = target("tpu7x-4")
    assert (got.chips, got.devices, got.memory) == (4, 8, 96 << 30)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v5q-8", "nearest: v5p, v5e"),
        ("v5p-500", r"nearest: v5p:8x8x8 \(512 chips\)"),
        ("v6e:3x3", r"nearest: v6e:2x4 \(8 chips\)"),
        ("h200-250", "Nearest: h200-248, h200-256"),
        ("2xh100-8", "Write h100-16"),
        ("v5p-0", "at least 1"),
        ("toaster", "known: v4, v5e"),
        ("", "no known machine"),
    ],
)
def test_a_machine_that_there_is_not_is_answered_with_the_nearest(text, says):
    with pytest.raises(ValueError, match=says):
        target(text)


def test_it_says_that_google_counts_cores():
    with pytest.raises(ValueError, match="two cores to a chip"):
        target("v5p-7")


@pytest.mark.parametrize("name", [n for n, d in DEVICES.items() if d.torus])
def test_every_slice_of_a_tpu_can_be_named(name):
    assert all(target(f"{name}:{'x'.join(map(str, s))}").shape == s for s in shapes(DEVICES[name]))
