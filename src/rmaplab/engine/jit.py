# SPDX-License-Identifier: GPL-2.0-only
"""How the engine's functions are compiled, and where the result is kept.

Numba remembers a compiled function by the file that it stands in, and does
not notice when a function that it calls was changed in another.  So what is
compiled is kept in a folder that is named after all of the engine's sources
and the release of Numba (:func:`rmaplab.engine.choice.cache_folder`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

from rmaplab.engine.choice import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["compiled", "entry", "inlined"]

P = ParamSpec("P")
R = TypeVar("R")


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """A function that Python calls: compiled at its first call, and kept on disk; it runs without Python's lock."""
    numba.config.CACHE_DIR = str(cache_folder(Path(function.__code__.co_filename).parent))
    made: Callable[P, R] = numba.njit(
        cache=True, nogil=True, error_model="numpy", _nrt=False, pipeline_class=_EntryCompiler
    )(function)
    return made


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """A function for entries and others like it: made into machine code as a part of each entry that needs it.

    Numbers are passed as 64-bit integers whatever field they were read from,
    so that there is one version of each function.
    """
    return _part(function, inlined=False)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """The same for a small function that is called for every AVC: it is copied to wherever it is called."""
    return _part(function, inlined=True)


def _part(function: Callable[P, R], *, inlined: bool) -> Callable[P, R]:
    made = numba.njit(
        nogil=True,
        error_model="numpy",
        _nrt=False,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        forceinline=inlined,
        pipeline_class=_PartCompiler,
    )(function)
    resolve, customize = made.get_call_template, made._compiler._customize_flags

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:  # noqa: ANN401 (Numba's own)
        return resolve(tuple(map(_widened, args)), kws)

    def flags(flags: Any) -> Any:  # noqa: ANN401 (Numba's own)
        flags = customize(flags)
        flags.no_compile = True
        return flags

    def add_overload(part: Any) -> None:  # noqa: ANN401 (Numba's own)
        part = part._replace(entry_point=object())  # Numba knows a function by it
        part.target_context.insert_user_function(part.entry_point, part.fndesc, [part.library])
        made.overloads[tuple(part.signature.args)] = part

    made.get_call_template, made.add_overload, made._compiler._customize_flags = (
        get_call_template,
        add_overload,
        flags,
    )
    result: Callable[P, R] = made
    return result


def _widened(kind: Any) -> Any:  # noqa: ANN401 (Numba tells no types)
    if isinstance(kind, numba.types.Boolean):
        return numba.types.boolean
    return numba.types.int64 if isinstance(kind, numba.types.Integer) else kind


class _PartLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Code that is only ever linked into that of an entry, and optimised there."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _RowsLower(Lower):  # type: ignore[misc]
    """An index is never below zero here, so nobody has to ask whether it counts from the end."""

    def lower_getitem(self, resty: Any, expr: Any, value: Any, index: Any, signature: Any) -> Any:  # noqa: ANN401
        return super().lower_getitem(resty, expr, value, index, _from_the_start(signature))

    def lower_setitem(self, target: Any, index: Any, value: Any, signature: Any) -> Any:  # noqa: ANN401
        return super().lower_setitem(target, index, value, _from_the_start(signature))


def _from_the_start(signature: Any) -> Any:  # noqa: ANN401 (Numba's own)
    container, index, *rest = signature.args
    if isinstance(container, numba.types.Array) and isinstance(index, numba.types.Integer):
        return signature.replace(args=(container, numba.types.uint64, *rest))
    return signature


@register_pass(mutates_CFG=True, analysis_only=False)
class _RowsLowering(NativeLowering):  # type: ignore[misc]
    _name = "rows_lowering"

    @property
    def lowering_class(self) -> type[_RowsLower]:
        return _RowsLower


class _RowsCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler with that way to index arrays."""

    def define_pipelines(self) -> list[Any]:
        pipelines: list[Any] = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [
                (_RowsLowering if kind is NativeLowering else kind, text) for kind, text in pipeline.passes
            ]
            pipeline.finalize()
        return pipelines


class _EntryLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Code of an entry, whose parts nobody else calls: LLVM need not pass them whole arrays."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage.name == "linkonce_odr" and not function.is_declaration:
                function.linkage = "internal"
        super()._optimize_final_module()


class _EntryCompiler(_RowsCompiler):
    """Numba's compiler with such a library."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 (Numba's own)
        super().__init__(*args)
        self.state.library = _EntryLibrary(self.state.targetctx.codegen(), "entry")
        self.state.library.enable_object_caching()


class _PartCompiler(_RowsCompiler):
    """Numba's compiler, which would make each function ready to run by itself: more than half of its time."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 (Numba's own)
        super().__init__(*args)
        self.state.library = _PartLibrary(self.state.targetctx.codegen(), "part")
