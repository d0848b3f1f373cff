"""How a gradient becomes a step: the optimizer of a recipe, which is one of torch's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from phosphene.errors import did_you_mean, error_text, printable
from phosphene.recipes.section import Section

if TYPE_CHECKING:
    import torch

# Named as the field names them; all others go by torch's own names.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "classic": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "rmsprop": ("RMSprop", {}),
    "adam": ("Adam", {}),
    "nadam": ("NAdam", {}),
}
_OF_SHIPPED = [("adam", {"betas": [0.5, 0.9]}), ("adam", {"betas": [0.5, 0.99]})]
_UNFIT = {
    "LBFGS": "it evaluates the objective several times a step",
    "SparseAdam": "it takes sparse gradients only",
    "Muon": "it takes matrices only",
}


def find_optimizer(name: str) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The torch optimizer of that name, in any case, and the options that the name stands for.

    Raises:
        ValueError: there is none (with the nearest), or it does not fit.
    """
    from torch import optim

    wanted, options = OPTIMIZERS.get(name.lower(), (name, {}))
    known = {
        key: value
        for key, value in vars(optim).items()
        if isinstance(value, type) and issubclass(value, optim.Optimizer) and value is not optim.Optimizer
    }
    for key, value in known.items():
        if key.lower() == wanted.lower():
            if key in _UNFIT:
                raise ValueError(f"{key} does not fit here: {_UNFIT[key]}")
            return value, options
    choices = [*OPTIMIZERS, *(key for key in known if key not in _UNFIT)]
    raise ValueError(f"no optimizer is called {name!r}{did_you_mean(name, choices)} (one of {', '.join(choices)})")


class Optimizer(Section):
    """How a gradient becomes a step."""

    name: str = Field("classic", description="classic, momentum, nesterov, rmsprop, adam, or any optimizer of torch")
    rate: float = Field(gt=0, le=1e12, description="learning rate, in units of 0..255 pixels")
    gradient: Literal["raw", "l2", "rms", "planes"] = Field(
        "raw",
        description="the gradient as it is; divided by its L2 norm; by its root mean square; or each color plane's by "
        "its own",
    )
    options: dict[str, bool | int | float | str | list[float]] = Field(
        {}, description="further options of the optimizer, as torch names them (momentum, betas, …)"
    )

    @model_validator(mode="after")
    def _constructs(self) -> Optimizer:
        # The recipes that ship need no look into torch, whose import takes seconds.
        are_known = not self.options or (self.name, self.options) in _OF_SHIPPED
        if self.name.lower() not in OPTIMIZERS or not are_known:
            import torch

            self.build(torch.zeros(1))
        return self

    def build(self, parameter: torch.Tensor) -> torch.optim.Optimizer | None:
        """The torch optimizer of one row, which climbs; None for plain steps along the gradient, which need none.

        Raises:
            ValueError: torch has no such optimizer, or it does not take these options.
        """
        if self.name.lower() == "classic" and not self.options:
            return None
        kind, options = find_optimizer(self.name)
        options = options | self.options
        try:
            return kind([parameter], lr=self.rate, maximize=True, **options)  # type: ignore[call-arg]
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            raise ValueError(f"{kind.__name__} has no option {unknown[1]!r}" if unknown else str(error)) from None
        except ValueError:
            raise
        except Exception as error:  # of what an optimizer does with options that are of another kind
            raise ValueError(
                f"{kind.__name__} does not take {printable(repr(options))} ({error_text(error)})"
            ) from None
