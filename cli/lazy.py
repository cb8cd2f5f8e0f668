"""Packages that take seconds to import: each one is imported at its first use.

So `--help` and the messages about a wrong flag or CSV come at once, and tools without tensors never load PyTorch. Editors and
type checkers see the real packages. A module that needs PyTorch at its own import (for example to define a subclass of
nn.Module) imports it as usual.

    from cli.lazy import torch
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class LazyModule(ModuleType):
    """Stands for a module and imports it when one of its attributes is first used."""

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), attribute)
        setattr(self, attribute, value)  # the next use finds it without this function
        return value


if TYPE_CHECKING:
    import jinja2 as jinja2
    import joblib as joblib
    import lightning_fabric as lightning_fabric
    import sklearn.linear_model as sklearn_linear_model
    import sklearn.metrics as sklearn_metrics
    import sklearn.mixture as sklearn_mixture
    import sklearn.model_selection as sklearn_model_selection
    import sklearn.pipeline as sklearn_pipeline
    import sklearn.preprocessing as sklearn_preprocessing
    import threadpoolctl as threadpoolctl
    import torch as torch
    import torchmetrics.detection as torchmetrics_detection
    from faster_coco_eval.core import mask as coco_masks
    from matplotlib import pyplot as plt
    from scipy import ndimage as scipy_ndimage
    from scipy import special as scipy_special
    from scipy import stats as scipy_stats
else:
    joblib = LazyModule("joblib")
    threadpoolctl = LazyModule("threadpoolctl")
    coco_masks = LazyModule("faster_coco_eval.core.mask")
    torch = LazyModule("torch")
    torchmetrics_detection = LazyModule("torchmetrics.detection")
    sklearn_linear_model = LazyModule("sklearn.linear_model")
    lightning_fabric = LazyModule("lightning_fabric")
    jinja2 = LazyModule("jinja2")
    plt = LazyModule("matplotlib.pyplot")
    sklearn_metrics = LazyModule("sklearn.metrics")
    sklearn_mixture = LazyModule("sklearn.mixture")
    sklearn_model_selection = LazyModule("sklearn.model_selection")
    sklearn_pipeline = LazyModule("sklearn.pipeline")
    sklearn_preprocessing = LazyModule("sklearn.preprocessing")
    scipy_ndimage = LazyModule("scipy.ndimage")
    scipy_special = LazyModule("scipy.special")
    scipy_stats = LazyModule("scipy.stats")
