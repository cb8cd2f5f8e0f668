"""Packages that take seconds to import: each is imported when the program first uses something in it.

`--help`, a mistyped flag and a faulty CSV answer at once, and tools that never touch a tensor never load PyTorch. Editors and
type checkers see the packages themselves. A module that needs PyTorch while it is imported itself (one that defines a subclass
of nn.Module, say) imports it as usual.

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
    import joblib as joblib
    import sklearn.linear_model as sklearn_linear_model
    import sklearn.metrics as sklearn_metrics
    import sklearn.mixture as sklearn_mixture
    import sklearn.model_selection as sklearn_model_selection
    import sklearn.pipeline as sklearn_pipeline
    import sklearn.preprocessing as sklearn_preprocessing
    import threadpoolctl as threadpoolctl
    import torch as torch
    from scipy import special as scipy_special
    from scipy import stats as scipy_stats
else:
    joblib = LazyModule("joblib")
    threadpoolctl = LazyModule("threadpoolctl")
    torch = LazyModule("torch")
    sklearn_linear_model = LazyModule("sklearn.linear_model")
    sklearn_metrics = LazyModule("sklearn.metrics")
    sklearn_mixture = LazyModule("sklearn.mixture")
    sklearn_model_selection = LazyModule("sklearn.model_selection")
    sklearn_pipeline = LazyModule("sklearn.pipeline")
    sklearn_preprocessing = LazyModule("sklearn.preprocessing")
    scipy_special = LazyModule("scipy.special")
    scipy_stats = LazyModule("scipy.stats")
