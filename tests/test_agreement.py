"""Scores against results by hand, and against a second implementation: all pairs of boundary points, by scipy's cdist."""

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from data.pictures import read_mask, resize_labels
from data.splits import pair_folder
from utils import agreement_cpu
from utils.agreement import (
    agreement,
    bf,
    bf_per_class,
    boundary_iou,
    dice,
    dilate_disk,
    hard_labels,
    iou_per_class,
    miou,
)

IGNORE = 255
THETAS = (1, 2.5, 3.0, 7, 0.12)


def tensor(*maps):
    return torch.from_numpy(np.stack(maps).astype(np.int64))


# --- the other route: plain loops over pixels and points ---------------------------------------------------------


def slow_boundary(labels, c):
    """Points (row, column) of class c that touch, with one of 8 neighbours in the picture, a valid pixel not of c."""
    height, width = labels.shape
    points = []
    for y, x in np.argwhere(labels == c):
        around = labels[max(0, y - 1):y + 2, max(0, x - 1):x + 2]
        if ((around != c) & (around != IGNORE)).any():
            points.append((y, x))
    return np.array(points).reshape(-1, 2)


def slow_scores(a, b, num_classes, theta):
    """(BF, mIoU) of two label maps."""
    a, b = a.copy(), b.copy()
    ignored = (a == IGNORE) | (b == IGNORE)
    a[ignored], b[ignored] = IGNORE, IGNORE
    f1 = []
    for c in [1] if num_classes == 2 else range(num_classes):
        points_a, points_b = slow_boundary(a, c), slow_boundary(b, c)
        if len(points_a) + len(points_b) == 0:
            continue
        if len(points_a) == 0 or len(points_b) == 0:
            f1.append(0.0)
            continue
        near = cdist(points_a, points_b) < theta
        precision, recall = near.any(1).mean(), near.any(0).mean()
        f1.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    ious = [((a == c) & (b == c)).sum() / ((a == c) | (b == c)).sum() for c in range(num_classes)
            if ((a == c) | (b == c)).any()]
    return np.mean(f1) if f1 else float((a == b).all()), np.mean(ious) if ious else 1.0


def random_map(rng, num_classes, height=23, width=29):
    """Blobs, polygons, single pixels, regions cut by the frame, empty maps, ignored patches."""
    labels = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(0, 5)):
        c = int(rng.integers(0, num_classes))
        kind = rng.integers(4)
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        if kind == 0:
            cv2.ellipse(labels, (x, y), (int(rng.integers(1, 12)), int(rng.integers(1, 9))), 30, 0, 360, c, -1)
        elif kind == 1:
            points = np.stack([rng.integers(-5, width + 5, 5), rng.integers(-5, height + 5, 5)], axis=1)
            cv2.fillPoly(labels, [points.astype(np.int32)], c)
        elif kind == 2:
            labels[y, x] = c
        else:
            labels[: y + 1, x:] = c
    if rng.random() < 0.4:
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        labels[y:y + 6, x:x + 8] = IGNORE
    return labels


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("theta", [1, 1.5, 2, 3, 4.2, 5, 7.3])
def test_scores_equal_brute_force(num_classes, theta):
    rng = np.random.default_rng([num_classes, int(10 * theta)])
    pairs = [(random_map(rng, num_classes), random_map(rng, num_classes)) for _ in range(40)]
    a, b = tensor(*[p[0] for p in pairs]), tensor(*[p[1] for p in pairs])
    expected = np.array([slow_scores(*pair, num_classes, theta) for pair in pairs])
    np.testing.assert_allclose(bf(a, b, num_classes, theta), expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(miou(a, b, num_classes), expected[:, 1], atol=1e-6)
    np.testing.assert_allclose(agreement(a, b, num_classes, "bm", theta), expected.mean(1), atol=1e-6)


def test_theta_as_share_of_the_diagonal():
    rng = np.random.default_rng(5)
    a, b = random_map(rng, 2, 30, 40), random_map(rng, 2, 30, 40)  # diagonal 50 px
    assert bf(tensor(a), tensor(b), 2, theta=0.081).item() == pytest.approx(slow_scores(a, b, 2, 4.05)[0])


def test_theta_3_is_the_published_5x5_window():
    point = torch.zeros(1, 9, 9, dtype=torch.bool)
    point[0, 4, 4] = True
    window = torch.zeros_like(point)
    window[0, 2:7, 2:7] = True
    assert torch.equal(dilate_disk(point, 3.0), window)


@pytest.mark.parametrize("radius", [1, 2.5, 4.2, 5, 9.06, 12])
def test_a_disk_is_whole_at_the_frame_too(radius):
    rows, columns = np.mgrid[:14, :17]
    for y, x in ((0, 0), (13, 16), (0, 9), (6, 16), (7, 8)):
        point = torch.zeros(1, 14, 17, dtype=torch.bool)
        point[0, y, x] = True
        expected = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        assert np.array_equal(dilate_disk(point, radius)[0].numpy(), expected), (y, x)


def test_bf_by_hand():
    # a 4x4 square (12 boundary pixels) and the same moved 3 px right: of a's boundary, the 3 right columns' 8 pixels
    # are closer than 3 px to b's; by symmetry the same share of b's
    a, b = np.zeros((12, 14)), np.zeros((12, 14))
    a[4:8, 3:7] = 1
    b[4:8, 6:10] = 1
    assert bf(tensor(a), tensor(b), 2, 3.0).item() == pytest.approx(8 / 12)
    # IoU: foreground 4 / 28, background (168 - 28) / (168 - 4)
    assert miou(tensor(a), tensor(b), 2).item() == pytest.approx((4 / 28 + 140 / 164) / 2)
    assert dice(tensor(a), tensor(b), 2).item() == pytest.approx(2 * 4 / 32)


def test_empty_and_full_maps():
    empty, full, square = np.zeros((8, 8)), np.ones((8, 8)), np.zeros((8, 8))
    square[2:5, 2:5] = 1
    a = tensor(empty, full, empty, empty, full)
    b = tensor(empty, full, square, full, square)
    assert bf(a, b, 2).tolist() == [1, 1, 0, 0, 0]  # equal, equal, one boundary, none but different, one boundary
    assert torch.isnan(bf_per_class(a, b, 2)[[0, 1, 3], 0]).all()


def test_a_frame_is_no_boundary():
    half = np.zeros((6, 10))
    half[:, 5:] = 1  # cut by the frame on three sides: only column 5 is boundary
    moved = np.zeros((6, 10))
    moved[:, 9:] = 1
    assert bf(tensor(half), tensor(moved), 2, 3.0).item() == 0
    moved[:, 7:] = 1
    assert bf(tensor(half), tensor(moved), 2, 3.0).item() == 1


def test_all_pixels_ignored_counts_as_agreement():
    a = torch.full((1, 5, 5), IGNORE)
    assert agreement(a, torch.zeros_like(a), 3, "bm").item() == 1


def test_boundary_iou_by_hand():
    # band of 1 px: the ring of a 5x5 square has 16 pixels; the square moved 1 px right shares 2 x 4 of them
    a, b = np.zeros((9, 12)), np.zeros((9, 12))
    a[2:7, 2:7] = 1
    b[2:7, 3:8] = 1
    assert boundary_iou(tensor(a), tensor(b), 2).item() == pytest.approx(8 / 24)
    full = np.ones((9, 12))  # the frame is contour: the band is the picture's rim
    assert boundary_iou(tensor(full), tensor(full), 2).item() == 1


@pytest.mark.parametrize("num_classes, width", [(2, 2), (4, 2), (2, 4), (3, 7)])
def test_boundary_iou_equals_repeated_erosion(num_classes, width):
    """The reference's own route: erode with a 3x3 square on a padded mask, once per pixel of width."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        pair = [np.where(m == IGNORE, 0, m).astype(np.uint8) for m in (random_map(rng, num_classes, 60, 80) for _ in "ab")]
        scores = []
        for c in [1] if num_classes == 2 else range(num_classes):
            bands = []
            for labels in pair:
                inside = np.pad((labels == c).astype(np.uint8), 1)
                bands.append((inside - cv2.erode(inside, np.ones((3, 3), np.uint8), iterations=width)) > 0)
            if (bands[0] | bands[1]).any():
                scores.append((bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum())
        expected = np.mean(scores) if scores else 1.0
        assert boundary_iou(*map(tensor, pair), num_classes, width / 100).item() == pytest.approx(expected, abs=1e-6)


def test_iou_of_an_absent_class_is_nan():
    a = torch.tensor([[[0, 0], [1, 1]]])
    ious = iou_per_class(a, a, 4)[0]
    assert ious[:2].tolist() == [1, 1] and torch.isnan(ious[2:]).all()


def test_scores_carry_no_gradient_and_come_from_hard_labels():
    logits = torch.randn(2, 1, 16, 16, requires_grad=True)
    labels = hard_labels(logits)
    assert torch.equal(labels, (torch.sigmoid(logits[:, 0]) > 0.5).long())
    assert not agreement(labels, torch.zeros_like(labels), 2, "bm").requires_grad
    logits = torch.randn(2, 3, 8, 8)
    assert torch.equal(hard_labels(logits), logits.softmax(1).argmax(1))


def test_logits_instead_of_labels_are_refused():
    with pytest.raises(ValueError, match="hard_labels"):
        bf(torch.randn(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="one shape"):
        miou(torch.zeros(1, 8, 8, dtype=torch.long), torch.zeros(1, 8, 9, dtype=torch.long), 2)


def test_a_batch_scores_as_its_samples_do():
    rng = np.random.default_rng(9)
    a, b = tensor(*[random_map(rng, 3) for _ in range(6)]), tensor(*[random_map(rng, 3) for _ in range(6)])
    alone = torch.cat([agreement(a[i:i + 1], b[i:i + 1], 3, "bm") for i in range(6)])
    assert torch.equal(agreement(a, b, 3, "bm"), alone)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cpu_and_gpu_agree():
    rng = np.random.default_rng(1)
    a, b = tensor(*[random_map(rng, 4) for _ in range(16)]), tensor(*[random_map(rng, 4) for _ in range(16)])
    torch.testing.assert_close(agreement(a.cuda(), b.cuda(), 4, "bm").cpu(), agreement(a, b, 4, "bm"))


# --- the offline route ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 8, 11, 40])
@pytest.mark.parametrize("theta", THETAS)
def test_offline_scores_are_the_tensors_scores(num_classes, theta):
    """200 pairs each, 5,000 in all, half of them of two similar maps, at sizes with and without a remainder of 64."""
    rng = np.random.default_rng([num_classes, int(100 * theta)])
    pairs = []
    for number in range(200):
        height, width = ((23, 29), (40, 64))[number % 2]
        a, b = (random_map(rng, num_classes, height, width) for _ in range(2))
        if number % 4 < 2:
            b = np.where(b == IGNORE, b, np.roll(a, rng.integers(-3, 4), axis=number % 2)).astype(np.uint8)
        pairs.append((a.astype(np.uint8), b.astype(np.uint8)))
    for size in ((23, 29), (40, 64)):
        some = [pair for pair in pairs if pair[0].shape == size]
        for metric in ("miou", "bf", "bm"):
            expected = agreement(*(tensor(*maps) for maps in zip(*some)), num_classes, metric, theta)
            found = [agreement_cpu.agreement(a, b, num_classes, metric, theta) for a, b in some]
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=metric)


def test_offline_scores_of_real_masks(photos):
    rows = pair_folder(photos).iloc[:20]
    masks = [read_mask(path) for path in rows["mask"]]
    for mask, other in zip(masks, masks[1:]):
        other = resize_labels(other, mask.shape)
        for b in (other, cv2.dilate(mask, np.ones((5, 5), np.uint8))):
            expected = agreement(tensor(mask), tensor(b), 2, "bm", 3.0).item()
            assert agreement_cpu.agreement(mask, b, 2, "bm", 3.0) == pytest.approx(expected, abs=1e-6)


def test_offline_scores_without_a_boundary():
    """A full picture and an empty one have no boundary, and are unlike."""
    full, empty = np.ones((2, 6, 7), np.uint8) * np.array([1, 0], np.uint8)[:, None, None]
    for a, b in ((full, empty), (full, full), (empty, empty)):
        for num_classes in (2, 3):
            for metric in ("bf", "miou"):
                expected = agreement(tensor(a), tensor(b), num_classes, metric).item()
                assert agreement_cpu.agreement(a, b, num_classes, metric) == expected == float(a is b)


def test_offline_scores_refuse_what_is_not_a_label_map():
    square = np.zeros((4, 4), np.uint8)
    for a, b in ((square, square[:3]), (square.astype(float), square), (square[None], square[None])):
        with pytest.raises(ValueError, match="uint8 label maps"):
            agreement_cpu.agreement(a, b, 2)
    with pytest.raises(ValueError, match="unknown metric"):
        agreement_cpu.agreement(square, square, 2, "iou")


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (23, 31)])
def test_a_theta_beyond_the_diagonal_or_of_nothing_is_the_limit(num_classes, shape):
    """The same scores, from both modules, and no work that grows with theta."""
    from utils import agreement as tensors
    from utils import agreement_cpu as arrays

    dice = np.random.default_rng(0)
    for _ in range(5):
        a, b = (dice.integers(0, num_classes, shape).astype(np.uint8) for _ in range(2))
        a[dice.random(shape) < 0.1] = 255
        for extreme, limit in ((1e300, 2 * sum(shape)), (1e9, 2 * sum(shape)), (1e-320, 1.0)):
            scores = [arrays.agreement(a, b, num_classes, "bf", theta) for theta in (extreme, limit)]
            scores += [tensors.agreement(torch.tensor(a)[None], torch.tensor(b)[None], num_classes, "bf", theta).item()
                       for theta in (extreme, limit)]
            np.testing.assert_allclose(scores, scores[0], atol=1e-6)
