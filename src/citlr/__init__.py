"""citlr: does a medical-image classifier depend on a sensitive attribute beyond what the rest of the image says?

The public names below are imported when they are first used, so that `import citlr` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from citlr.threads import share_heaps, tell_openmp
from citlr.version import __version__

# Before anything of this package loads torch, which reads it once.
tell_openmp()
share_heaps()

if TYPE_CHECKING:
    from citlr.audit.generation import Counterfactuals as Counterfactuals
    from citlr.audit.generation import generate as generate
    from citlr.audit.on_disk import read_counterfactuals as read_counterfactuals
    from citlr.audit.results.result import AuditResult as AuditResult
    from citlr.audit.results.result import read_result as read_result
    from citlr.data.cohort import Cohort as Cohort
    from citlr.data.reading import read_cohort as read_cohort
    from citlr.data.sources.torch_dataset import read_dataset as read_dataset
    from citlr.generators.diffusion.ldm import CLDM as CLDM
    from citlr.generators.diffusion.ldm import DLDM as DLDM
    from citlr.generators.registry import build_generator as build_generator
    from citlr.generators.registry import load_generator as load_generator
    from citlr.invariance import power as power
    from citlr.invariance.observational.observe import observe as observe
    from citlr.invariance.responses import Responses as Responses
    from citlr.invariance.verdict import assess as assess
    from citlr.predictors.loading import load_predictor as load_predictor
    from citlr.simulators.phantom.world import PhantomWorld as PhantomWorld

_HOME = {
    "AuditResult": "citlr.audit.results.result",
    "CLDM": "citlr.generators.diffusion.ldm",
    "Cohort": "citlr.data.cohort",
    "DLDM": "citlr.generators.diffusion.ldm",
    "PhantomWorld": "citlr.simulators.phantom.world",
    "Responses": "citlr.invariance.responses",
    "Counterfactuals": "citlr.audit.generation",
    "assess": "citlr.invariance.verdict",
    "build_generator": "citlr.generators.registry",
    "generate": "citlr.audit.generation",
    "load_generator": "citlr.generators.registry",
    "observe": "citlr.invariance.observational.observe",
    "load_predictor": "citlr.predictors.loading",
    "read_cohort": "citlr.data.reading",
    "read_counterfactuals": "citlr.audit.on_disk",
    "read_dataset": "citlr.data.sources.torch_dataset",
    "read_result": "citlr.audit.results.result",
}
# The room `citlr.audit` can be called: `citlr.audit(model, counterfactuals)`.
_MODULES = {"audit": "citlr.audit", "power": "citlr.invariance.power"}
__all__ = [*_HOME, *_MODULES, "__version__"]  # noqa: PLE0604 - the names are the table's keys


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOME:
        raise AttributeError(f"module 'citlr' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
