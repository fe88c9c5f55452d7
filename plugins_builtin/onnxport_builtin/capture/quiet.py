"""What libraries say during a capture that their users can do nothing about is not said. All else comes through."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator

import torch
import torch.export._trace as tracing

_WARNINGS = (
    "None of the inputs have requires_grad=True",  # of torch.utils.checkpoint: a capture wants no gradients
    "`create_unbacked_symint` is deprecated",  # of torchvision 0.29, which calls it
)
_LOGGED = {
    "torch.export._trace": "is unsupported",  # a case of torch's collection of them, by its name alone
    "torch._subclasses.fake_tensor": "failed while attempting to run meta for",  # a wrong shape, which the error tells
    "torch.fx.experimental.symbolic_shapes": "Unable to find user code corresponding to",
}


@contextlib.contextmanager
def quiet(model: torch.nn.Module) -> Iterator[None]:
    """Leave out what is of no use to the caller: of attempts that failed, too, the errors tell it all."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for start in _WARNINGS:
            warnings.filterwarnings("ignore", message=re.escape(start))
        if names := "|".join(map(re.escape, _assigned_by_torch(model))):
            # torch.nn's own code assigns these; they can't be registered as buffers.
            one = rf"self\.({names})(\[\d+\])?"
            warnings.filterwarnings("ignore", message=rf"The tensor attributes? {one}(, {one})* (was|were) assigned")
        for name, text in _LOGGED.items():
            logger, unwanted = logging.getLogger(name), _Without(text)
            logger.addFilter(unwanted)
            stack.callback(logger.removeFilter, unwanted)
        # torch prints the part of a graph that it traced before an error; only its module's name for print is replaced.
        vars(tracing)["print"] = _discard
        stack.callback(vars(tracing).pop, "print", None)
        yield


def _discard(*_args: object, **_options: object) -> None: ...


class _Without(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return self.name not in record.getMessage()


def _assigned_by_torch(model: torch.nn.Module) -> Iterator[str]:
    """Attributes that modules of torch.nn, and hooks of torch.nn.utils, set in forward."""
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(module, torch.nn.RNNBase):
            yield f"{prefix}_flat_weights"
        for hook in module._forward_pre_hooks.values():
            if type(hook).__module__.startswith("torch.nn.utils.") and isinstance(getattr(hook, "name", None), str):
                yield f"{prefix}{hook.name}"
