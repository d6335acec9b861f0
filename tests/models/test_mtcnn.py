"""The published networks against PyTorch's layers, and the cascade with networks whose answers are known.

Dimensions: N windows, H W image.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
from foreign import random_images

from jaxmodels.convert.load import load_weights
from jaxmodels.models.mtcnn import FacePrediction, onet, pnet, rnet
from jaxmodels.tasks import face_detection
from jaxmodels.tasks.face_detection import find_faces, network, suppress

pytestmark = pytest.mark.fast

FILES = {"pnet": (pnet, 12), "rnet": (rnet, 24), "onet": (onet, 48)}
WEIGHTS = {"pnet": 6_632, "rnet": 100_178, "onet": 389_040}  # as the paper's authors' files have them


def theirs(weights, x, n, pools, dense):
    """The network in PyTorch's functions, by the names of the file; x BCHW."""
    from torch.nn.functional import conv2d, linear, max_pool2d, prelu

    for i in range(1, n + 1):
        x = prelu(
            conv2d(x, weights[f"conv{i}.weight"], weights[f"conv{i}.bias"]), weights[f"prelu{i}.weight"]
        )
        if pools[i - 1]:
            x = max_pool2d(x, pools[i - 1], 2, ceil_mode=True)
    if not dense:
        heads = [
            conv2d(x, weights[f"conv{n + 1}_{i}.weight"], weights[f"conv{n + 1}_{i}.bias"]) for i in (1, 2)
        ]
        return [head.permute(0, 2, 3, 1) for head in heads]
    x = x.permute(0, 3, 2, 1).reshape(len(x), -1)
    x = prelu(
        linear(x, weights[f"dense{n + 1}.weight"], weights[f"dense{n + 1}.bias"]),
        weights[f"prelu{n + 1}.weight"],
    )
    name = f"dense{n + 2}_"
    return [
        linear(x, weights[f"{name}{i}.weight"], weights[f"{name}{i}.bias"])
        for i in (1, 2, 3)
        if f"{name}{i}.bias" in weights
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_published_networks_say_what_pytorch_says(name, real):
    torch = pytest.importorskip("torch")
    make, size = FILES[name]
    path = real("weights") / "mtcnn" / f"{name}.pt"
    found = load_weights(make(), path, layout="facenet-pytorch")
    assert sum(x.size for x in jax.tree.leaves(found.params)) == WEIGHTS[name]
    images = random_images(3, size, size, 3) if name != "pnet" else random_images(2, 29, 40, 3)
    got = network(found)(images)
    weights = torch.load(path, weights_only=True)
    model = found.model
    want = theirs(
        weights, torch.tensor(images.transpose(0, 3, 1, 2)), len(model.channels), model.pools, model.dense
    )
    np.testing.assert_allclose(got.face, torch.softmax(want[0], -1)[..., 1].numpy(), atol=1e-5)
    np.testing.assert_allclose(got.edges, want[1].numpy(), atol=1e-4)
    if model.marks:
        np.testing.assert_allclose(got.points, want[2].numpy(), atol=1e-4)


@pytest.mark.slow
def test_the_published_networks_find_no_face_in_a_plain_image(real):
    pytest.importorskip("torch")
    image = pytest.importorskip("PIL.Image").new("RGB", (60, 40), (90, 120, 90))
    folder = real("weights") / "mtcnn"
    parts = [
        network(load_weights(make(), folder / f"{name}.pt", layout="facenet-pytorch"))
        for name, (make, _) in FILES.items()
    ]
    assert find_faces(image, *parts).boxes.shape == (0, 4)


def bright(x_NHWC):
    """Whether a window is bright from edge to edge, and the edges of its bright part; also for maps."""
    size = x_NHWC.shape[1]
    lit = x_NHWC[..., 0] > 0.2
    rows, columns = lit.any(2), lit.any(1)

    def first(line):
        return line.argmax(1) / size

    def last(line):
        return line[:, ::-1].argmax(1) / size

    edges = np.stack([first(columns), first(rows), -last(columns), -last(rows)], -1)
    points = np.concatenate(
        [np.tile([0.25, 0.75, 0.5, 0.3, 0.7], (len(lit), 1)), np.full((len(lit), 5), 0.5)], 1
    )
    return FacePrediction(np.where(lit.mean((1, 2)) > 0.6, lit.mean((1, 2)), 0.0), edges, points)


def bright_map(x_1HWC):
    """The same of all windows of 12 x 12, 2 pixels apart."""
    H, W = x_1HWC.shape[1:3]
    h, w = (H - 12) // 2 + 1, (W - 12) // 2 + 1
    windows = np.stack(
        [x_1HWC[0, 2 * i : 2 * i + 12, 2 * j : 2 * j + 12] for i in range(h) for j in range(w)]
    )
    lit, said = windows[..., 0] > 0.2, bright(windows)
    cut = lit[:, [0, -1]].any((1, 2)) | lit[:, :, [0, -1]].any((1, 2))  # the square reaches out of the window
    face = np.where(cut | (lit.mean((1, 2)) < 0.3), 0.0, 0.9)
    return FacePrediction(face.reshape(1, h, w), said.edges.reshape(1, h, w, 4), None)


@pytest.mark.parametrize(
    ("box", "size"),
    [((20, 30, 50, 60), (80, 90)), ((8, 36, 28, 56), (100, 70)), ((40, 50, 90, 100), (100, 110))],
)
def test_the_cascade_finds_a_square_where_it_is(box, size):
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[box[0] : box[2], box[1] : box[3]] = 255
    found = find_faces(image.fromarray(pixels), bright_map, bright, bright, smallest=16)
    side = box[2] - box[0]
    assert len(found.boxes) == 1 and abs(found.boxes[0] - box).max() < 0.15 * side
    want = np.array([box[0], box[1]]) + side * np.array(
        [[0.5, 0.25], [0.5, 0.75], [0.5, 0.5], [0.5, 0.3], [0.5, 0.7]]
    )
    assert abs(found.points[0] - want).max() < 0.15 * side


def test_of_boxes_that_overlap_the_best_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [2, 2, 6, 6], [20, 20, 30, 30]], float)
    scores = np.array([0.8, 0.9, 0.7, 0.6])
    assert suppress(boxes, scores, 0.5).tolist() == [1, 2, 3]
    assert suppress(boxes, scores, 0.5, of_smaller=True).tolist() == [1, 3]
    assert suppress(boxes[:0], scores[:0], 0.5).tolist() == []


def test_more_windows_than_a_chunk_are_found_where_they_are_in_one(monkeypatch):
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[10:50, 10:50] = pixels[40:80, 70:110] = 255
    chunks = []

    def narrowed(x_NHWC):
        chunks.append(len(x_NHWC))
        return bright(x_NHWC)

    networks = image.fromarray(pixels), bright_map, narrowed, narrowed
    want = find_faces(*networks, smallest=16)
    monkeypatch.setattr(face_detection, "CHUNK", 1)
    del chunks[:]
    got = find_faces(*networks, smallest=16)
    assert len(want.boxes) == 2 and {*chunks} == {1} and len(chunks) > 2
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_windows_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"MTCNN: got windows of 20x24; expected 24x24\. Resize them"):
        jax.eval_shape(lambda: rnet().init(jax.random.key(0), np.zeros((1, 20, 24, 3), np.float32)))
