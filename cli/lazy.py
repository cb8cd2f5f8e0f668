"""Packages that take seconds to import, imported when something in them is first used.

`--help`, a mistyped flag and a faulty CSV answer at once, and tools that never touch a tensor never load PyTorch. A module
that needs PyTorch while it is being imported itself (a subclass of nn.Module, say) imports it as usual.
"""

import importlib
from types import ModuleType


class LazyModule(ModuleType):
    """Stands for a module until one of its attributes is asked for."""

    def __getattr__(self, attribute):
        value = getattr(importlib.import_module(self.__name__), attribute)
        setattr(self, attribute, value)  # the next time it is found at once
        return value


torch = LazyModule("torch")
