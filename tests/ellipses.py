"""Pictures of ellipses with their masks, and calls of benchmarks on them."""

import sys

import cv2
import numpy as np

SQUARE = np.ones((3, 3), np.uint8)


def call(monkeypatch, module, *flags):
    """Run a script's main() on flags."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, flags)])
    return module.main()


def picture(seed=0, size=(96, 80)):
    """(image, its mask): an ellipse of one colour before a ground of another, noise on both."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (40, 48), (20, 30), 15, 0, 360, 1, -1)
    colours = np.array([[60, 110, 70], [190, 90, 150]])[mask]
    return (colours + rng.normal(0, 12, (*size, 3))).clip(0, 255).astype(np.uint8), mask
