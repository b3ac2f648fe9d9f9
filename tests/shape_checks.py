"""The run-time checks of shapes, on current torch, quick, and switched off for tests marked ``unchecked``.

typeguard and torchtyping read a function's signature anew at every call, which takes longer than most functions do;
here it is read once. ``crystalgfn`` must not be imported at the top of this file: typeguard's import hook checks only
what is imported later.
"""

import functools
import inspect
from typing import Any

import pytest
import torch
import typeguard
from torchtyping import typechecker

if not hasattr(torch.Tensor, "names"):
    # torchtyping 0.1.5 reads the names of named tensors, which torch removed. A tensor without names has None for each.
    torch.Tensor.names = property(lambda self: (None,) * self.dim())


class _Checks:
    """Whether typeguard's wrappers check the calls of the test that runs; see the marker ``unchecked``."""

    active = True


class _NoMemo:
    """What a wrapper notes of a call that it does not check."""

    type_hints: dict[str, Any] = {}


def _bound(code: Any, arguments: tuple, named: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names. Python itself refuses a call that does not fit, once it is made."""
    count = code.co_argcount
    last = count + code.co_kwonlyargcount
    found = dict(zip(code.co_varnames[:count], arguments, strict=False))
    if code.co_flags & inspect.CO_VARARGS:
        if len(arguments) > count:
            found[code.co_varnames[last]] = arguments[count:]
        last += 1
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return {**found, **named}
    known = code.co_varnames[: count + code.co_kwonlyargcount]
    found.update({name: value for name, value in named.items() if name in known})
    more = {name: value for name, value in named.items() if name not in known}
    return {**found, code.co_varnames[last]: more} if more else found


def _quicken() -> None:
    """Read a signature at a function's first call only, and switch all checks by `_Checks`."""
    original = inspect.getclosurevars(typeguard.check_type).nonlocals["_check_type"]
    arguments = inspect.getclosurevars(typeguard.check_argument_types).nonlocals["_check_argument_types"]
    returned = inspect.getclosurevars(typeguard.check_return_type).nonlocals["_check_return_type"]
    tensors = typeguard.check_type
    annotated = typechecker._AnnotatedType

    class CallMemo(typeguard._CallMemo):
        __slots__ = ()

        def __init__(self, func: Any, frame_locals: Any = None, args: Any = None, kwargs: Any = None, **options: Any):
            hints = typeguard._type_hints_map.get(func)
            if hints is None or args is None or kwargs is None or hasattr(func, "__wrapped__"):
                super().__init__(func, frame_locals, args, kwargs, **options)
                return
            self.globals, self.locals, self.func, self.type_hints = func.__globals__, frame_locals, func, hints
            self.func_name = typeguard.function_name(func)
            self.is_generator = bool(func.__code__.co_flags & inspect.CO_GENERATOR)
            self.arguments = _bound(func.__code__, args, kwargs)

    def check_type(argname: str, value: Any, expected_type: Any, memo: Any = None, **options: Any) -> None:
        if type(value) is expected_type:
            return
        if isinstance(expected_type, annotated):
            tensors(argname, value, expected_type, memo, **options)
        else:
            original(argname, value, expected_type, memo, **options)

    def check_argument_types(memo: Any) -> bool:
        if memo is not _NoMemo:
            memo.value_info, memo.name_to_size, memo.name_to_shape = [], {}, {}
            arguments(memo)
            _check_sizes(memo)
        return True

    def check_return_type(value: Any, memo: Any) -> bool:
        if memo is not _NoMemo:
            memo.value_info = []
            returned(value, memo)
            _check_sizes(memo)
        return True

    typeguard._CallMemo = lambda *args, **kwargs: CallMemo(*args, **kwargs) if _Checks.active else _NoMemo
    typeguard.check_type = check_type
    typeguard.check_argument_types = check_argument_types
    typeguard.check_return_type = check_return_type


def _check_sizes(memo: Any) -> None:
    """Whether the dimensions of one name have one size, in all tensors of a call."""
    if memo.value_info:
        try:
            typechecker._check_memo(memo)
        except TypeError as error:  # without torchtyping's long traceback
            raise TypeError(*error.args) from None


class _AnythingMeta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return cls


class Anything(metaclass=_AnythingMeta):
    """Stands in for a name that is imported for type checkers only: every object is an instance of it."""


def _tolerate() -> None:
    """Let typeguard pass over names under ``if TYPE_CHECKING``; arguments with other names are checked as before."""
    resolve = typeguard.get_type_hints  # torchtyping's, from here on

    @functools.wraps(resolve)
    def tolerant(function: Any, localns: dict[str, Any] | None = None) -> dict[str, Any]:
        names = dict(localns or {})
        while True:
            try:
                return resolve(function, localns=names)
            except NameError as error:
                if error.name in names:
                    raise
                names[error.name] = Anything

    typeguard.get_type_hints = tolerant


def pytest_sessionstart() -> None:
    _tolerate()
    _quicken()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Tests marked ``unchecked``, with the fixtures that they are the first to need, run without checks of shapes."""
    _Checks.active = item.get_closest_marker("unchecked") is None
    try:
        return (yield)
    finally:
        _Checks.active = True
