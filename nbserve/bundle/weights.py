"""`nbserve.load_weights`: a module from a checkpoint without initialising or copying weights. Runs in the worker."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from nbserve.bundle.mapped import MappedFile
from nbserve.errors import WeightsError

M = TypeVar("M", bound=nn.Module)
Weights = Mapping[str, torch.Tensor]


def load_weights(build: Callable[[], M], path: str | Path) -> M:
    """Build a module and give it the weights of a checkpoint (safetensors, or a state dict from `torch.save`).

    Parameters are built on the meta device and then mapped from the file, so nothing is initialised or copied and
    workers share the pages. Buffers that the checkpoint lacks keep the values that `build` gives them.
    Raises WeightsError where names or shapes do not fit.
    """
    with _parameters_on_meta():
        module = build()
    _assign(module, _read(Path(path)), path)
    _rebuild_what_is_still_meta(module, build)
    return module


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move each parameter to the meta device when it is registered: what initialises it then costs nothing.

    Building wholly under `torch.device("meta")` would lose the values of buffers and break `.item()` in constructors.
    """
    # The originals are kept to the end, so that no id is used twice; memory nobody wrote to takes no room.
    moved: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}

    def move(owner: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or isinstance(parameter, nn.parameter.UninitializedParameter):
            return None
        if id(parameter) not in moved:
            moved[id(parameter)] = parameter, _meta_twin(parameter)
        return moved[id(parameter)][1]

    # Its stub says that a hook returns nothing; it may return a parameter to register instead.
    hook = register_module_parameter_registration_hook(cast(Any, move))
    try:
        yield
    finally:
        hook.remove()


def _meta_twin(parameter: nn.Parameter) -> nn.Parameter:
    twin = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    twin.__dict__.update(parameter.__dict__)
    return twin


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint at {path}")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return MappedFile.open(path).tensors()
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=start.startswith(b"PK"))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first_line = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} is no state dict that can be loaded safely: {first_line} Save it with "
            "torch.save(model.state_dict(), path) or safetensors.torch.save_file(model.state_dict(), path)"
        ) from None
    return _state_dict(loaded, path)


def _state_dict(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict itself, or the only one in a training checkpoint."""
    if _is_state_dict(loaded):
        return dict(loaded)
    nested = [key for key, value in loaded.items() if _is_state_dict(value)] if isinstance(loaded, dict) else []
    if len(nested) == 1:
        return dict(loaded[nested[0]])
    seen = f"a dict with {', '.join(map(str, loaded))}" if isinstance(loaded, dict) else type(loaded).__name__
    raise WeightsError(f"{path} holds {seen}, not one state dict: save model.state_dict() alone")


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(part, torch.Tensor) for part in value.values())


def _assign(module: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    ties = _ties(module)
    _complete(state, ties)
    _check(module, state, path)
    module.load_state_dict(state, strict=False, assign=True)
    for names in ties:
        shared = module.get_parameter(names[0])
        for name in names[1:]:
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, shared)


def _ties(module: nn.Module) -> list[list[str]]:
    """Names of one and the same parameter, such as an embedding that is the output layer too."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _complete(state: dict[str, torch.Tensor], ties: list[list[str]]) -> None:
    """safetensors files hold a tied weight once; the state dict has it under each name."""
    for names in ties:
        present = [name for name in names if name in state]
        for name in names if present else ():
            state.setdefault(name, state[present[0]])


def _check(module: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    wanted = dict(module.named_parameters(remove_duplicate=False))
    known = {**module.state_dict(), **wanted}
    problems = [
        _listed("lacks", [name for name in wanted if name not in state]),
        _listed("has unexpected", [name for name in state if name not in known]),
        _listed(
            "has other shapes for", [_shapes(n, state[n], known[n]) for n in state if _differs(state[n], known.get(n))]
        ),
    ]
    if text := "; ".join(problem for problem in problems if problem):
        raise WeightsError(f"{path} does not fit the module: it {text}. {_advice(list(state), list(wanted))}")
    for name in wanted:
        if state[name].dtype != known[name].dtype:
            state[name] = state[name].to(known[name].dtype)


def _listed(verb: str, names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{verb} {', '.join(names[:5])}{more}" if names else ""


def _differs(found: torch.Tensor, wanted: torch.Tensor | None) -> bool:
    return wanted is not None and found.shape != wanted.shape


def _shapes(name: str, found: torch.Tensor, wanted: torch.Tensor) -> str:
    return f"{name} ({list(found.shape)}, the module has {list(wanted.shape)})"


def _advice(found: list[str], wanted: list[str]) -> str:
    for prefix in ("module.", "_orig_mod.", "model."):
        if found and all(name.startswith(prefix) for name in found) and not any(n.startswith(prefix) for n in wanted):
            return f"All its names start with {prefix!r}: save the inner module's state dict instead"
    return "Build the module with the arguments it had when the checkpoint was saved"


def _rebuild_what_is_still_meta(module: M, build: Callable[[], M]) -> None:
    """Tensors that the constructor computed from parameters are on meta now: take them from an ordinary build."""
    places = [
        (owner, name)
        for owner, part in module.named_modules()
        for name, value in {**part._buffers, **part.__dict__}.items()
        if isinstance(value, torch.Tensor) and value.is_meta
    ]
    if not places:
        return
    real = build()
    for owner, name in places:
        setattr(module.get_submodule(owner), name, getattr(real.get_submodule(owner), name))
