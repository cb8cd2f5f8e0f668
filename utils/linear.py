"""A linear classifier on fixed features, ignorant of noise, and its out-of-fold probabilities.

Legend: N samples, D features, C classes; features float32 (N, D); labels int (N,) of 0..C-1, as given. NI-ERM (Zhu et al.,
"Label Noise: Ignorance Is Bliss", NeurIPS 2024) trains it on the features of a frozen pretrained encoder.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cli.files import UserError, counted, progress
from cli.lazy import (
    joblib,
    sklearn_linear_model,
    sklearn_metrics,
    sklearn_model_selection,
    sklearn_pipeline,
    sklearn_preprocessing,
    threadpoolctl,
)
from cli.machine import usable_cores

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C: small = simple; the loss is a sum over the samples
MOST_STEPS = 1000  # of L-BFGS; it stops by itself long before


def trained(features: np.ndarray, labels: np.ndarray, strength: float) -> Any:
    """`linear_classifier`, trained on all samples."""
    with one_thread_each():
        return linear_classifier(strength).fit(features, labels)


def linear_classifier(strength: float) -> Any:
    """Multinomial logistic regression on standardised features, not trained yet: scikit-learn's Pipeline.

    Args:
        strength: C, the inverse of the L2 regularisation.
    """
    return sklearn_pipeline.make_pipeline(sklearn_preprocessing.StandardScaler(),
                                          sklearn_linear_model.LogisticRegression(C=strength, max_iter=MOST_STEPS))


def stratified_folds(labels: np.ndarray, images: Sequence[str], folds: int, seed: int, names: Sequence[str]) -> np.ndarray:
    """Assign each sample to the fold that judges it, each class spread evenly; the rows of one image get one fold.

    Args:
        images: path of each sample's image.
        folds: 2 or more.
        names: of the classes, for the message.

    Returns:
        int (N,) of 0..folds-1.

    Raises:
        UserError: one class only, or a class of fewer images than folds: some fold's classifier might not know the class.
    """
    if len(np.unique(labels)) < 2:
        raise UserError(f"all rows are labelled {names[labels[0]]}; a classifier needs two classes at least")
    classes = np.unique(labels)
    own = pd.Series(list(images)).groupby(labels).nunique().tolist()  # images of each class
    if min(own) < folds:
        count, rarest = min(own), names[classes[own.index(min(own))]]
        raise UserError(f"class {rarest} has {counted(count, 'image')}, fewer than --folds {folds}; lower it, or leave "
                        "the class out")
    fold_of = np.zeros(len(labels), int)
    alone = len(set(images)) == len(labels)
    splitter = sklearn_model_selection.StratifiedKFold if alone else sklearn_model_selection.StratifiedGroupKFold
    parts = splitter(folds, shuffle=True, random_state=seed).split(labels, labels, None if alone else images)
    for fold, (_, judged) in enumerate(parts):
        fold_of[judged] = fold
    spread = pd.Series(fold_of).groupby(labels).nunique().to_numpy()
    if spread.min() < 2:
        raise UserError(f"class {names[classes[spread.argmin()]]}: its images cannot be spread over two folds; leave it out")
    return fold_of


def out_of_fold(features: np.ndarray, labels: np.ndarray, fold_of: np.ndarray, strength: float, classes: int) -> np.ndarray:
    """Each sample's class probabilities by a classifier of the other folds: the sample's own label has no influence on them.

    Args:
        fold_of: int (N,), see `stratified_folds`.
        strength: see `linear_classifier`.
        classes: C.

    Returns:
        float (N, C); 0 for a class of which there is no sample.
    """
    folds = sklearn_model_selection.PredefinedSplit(fold_of)
    with one_thread_each():
        found = sklearn_model_selection.cross_val_predict(linear_classifier(strength), features, labels, cv=folds,
                                                          method="predict_proba", n_jobs=min(usable_cores(), fold_of.max() + 1))
    probabilities = np.zeros((len(labels), classes))
    probabilities[:, np.unique(labels)] = found / found.sum(1, keepdims=True, dtype=float)  # float32 sums to 1 but roughly
    return probabilities


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Folds run side by side, each in one thread of linear algebra. More threads per fold made a fit 10 times slower on a busy
    machine, and results depended on the number of cores."""
    with threadpoolctl.threadpool_limits(1), joblib.parallel_config("threading"):
        yield


def choose_strength(features: np.ndarray, labels: np.ndarray, fold_of: np.ndarray, classes: int,
                    strengths: Sequence[float] = STRENGTHS) -> tuple[float, np.ndarray, list[dict]]:
    """The strength of the least out-of-fold log-loss on the given, noisy labels; no clean label is looked at.

    The strengths are tried from the smallest up, until the log-loss grows: the large ones take the longest.

    Returns:
        (strength, out-of-fold probabilities (N, C) with it, trials: list of dict of `C`, `log_loss`, `accuracy`, on the
        given labels).
    """
    trials: list[dict] = []
    best: tuple[float, np.ndarray] | None = None
    for strength in progress(sorted(strengths), "choosing the regularisation", unit="strength"):
        probabilities = out_of_fold(features, labels, fold_of, strength, classes)
        loss = sklearn_metrics.log_loss(labels, probabilities, labels=np.arange(classes))
        trials.append({"C": strength, "log_loss": float(loss), "accuracy": float((probabilities.argmax(1) == labels).mean())})
        if best is not None and loss >= min(trial["log_loss"] for trial in trials[:-1]):
            break
        best = strength, probabilities
    if best is None:
        raise ValueError("no strengths to try")
    return *best, trials
