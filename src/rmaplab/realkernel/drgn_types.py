# SPDX-License-Identifier: GPL-2.0-only
"""Lets drgn debug a kernel without debug symbols: types out of BTF, symbols out of kallsyms, variables out of both.

drgn asks finders, callables that are registered with a Program, for what it is
told to look up; so its own helpers work on such kernels too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.realkernel.btf import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    import drgn

    from rmaplab.realkernel.btf import Btf, BtfType, Member
    from rmaplab.realkernel.guest_symbols import KernelSymbol, KernelSymbols

__all__ = ["FINDER", "VARIABLES", "DrgnTypes", "find_symbols", "register", "silence"]

FINDER = "rmaplab"
"""The name of our finders in a Program."""

VARIABLES = {
    **{"init_task": "struct task_struct", "init_mm": "struct mm_struct", "init_pid_ns": "struct pid_namespace"},
    **{"init_uts_ns": "struct uts_namespace", "init_user_ns": "struct user_namespace", "init_net": "struct net"},
    **{"anon_vma_cachep": "struct kmem_cache *", "anon_vma_chain_cachep": "struct kmem_cache *"},
    **{"slab_caches": "struct list_head", "modules": "struct list_head", "super_blocks": "struct list_head"},
    **{"page_offset_base": "unsigned long", "vmemmap_base": "unsigned long", "vmalloc_base": "unsigned long"},
    **{"mem_section": "struct mem_section **", "phys_base": "unsigned long", "saved_command_line": "char *"},
    **{"__cpu_possible_mask": "struct cpumask", "__cpu_online_mask": "struct cpumask"},
    **{"__cpu_present_mask": "struct cpumask", "nr_cpu_ids": "unsigned int", "jiffies_64": "u64"},
    **{"max_pfn": "unsigned long", "min_low_pfn": "unsigned long", "root_mem_cgroup": "struct mem_cgroup *"},
}
"""Types of variables: BTF has those of per-CPU variables alone (pahole, --btf_features without global_var)."""

_DEEPEST = 64  # types within types, without a struct in between
_SIGNED, _BOOL = 1, 4  # encodings of an integer (btf.h)
_QUALIFIERS = {Kind.CONST: "CONST", Kind.VOLATILE: "VOLATILE", Kind.RESTRICT: "RESTRICT"}


class DrgnTypes:
    """Makes drgn's types of BTF's, each when it is first asked for."""

    def __init__(self, prog: drgn.Program, btf: Btf) -> None:
        import drgn

        self.drgn = drgn
        self.prog = prog
        self.btf = btf
        self._made: dict[int, drgn.Type] = {}
        self._depth = 0
        kinds = drgn.TypeKind
        self._kinds = {
            kinds.STRUCT: (Kind.STRUCT,),
            kinds.UNION: (Kind.UNION,),
            kinds.ENUM: (Kind.ENUM, Kind.ENUM64),
            kinds.TYPEDEF: (Kind.TYPEDEF,),
            kinds.INT: (Kind.INT,),
            kinds.BOOL: (Kind.INT,),
            kinds.FLOAT: (Kind.FLOAT,),
        }
        self._enums: dict[str, int] | None = None

    # --- finders -------------------------------------------------------------------------------------

    def find_type(
        self, prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None
    ) -> drgn.Type | None:
        """A type finder: by kind and name; BTF knows of no files."""
        if filename:
            return None
        wanted = {kind for one, of in self._kinds.items() if one in kinds for kind in of}
        for ident in self.btf.named(name):
            if self.btf.type(ident).kind in wanted:
                found = self.type(ident)
                if found.kind in kinds:
                    return found
        return None

    def find_constant(self, name: str) -> drgn.Object | None:
        """An enumerator of whatever enum."""
        if self._enums is None:
            self._enums = {}
            for ident in range(1, len(self.btf)):
                if self.btf.type(ident).kind in (Kind.ENUM, Kind.ENUM64):
                    for enumerator, _ in self.btf.enumerators(ident):
                        self._enums.setdefault(enumerator, ident)
        if name not in self._enums:
            return None
        ident = self._enums[name]
        return self.drgn.Object(self.prog, self.type(ident), dict(self.btf.enumerators(ident))[name])

    def find_function(self, name: str, address: int) -> drgn.Object | None:
        """A function that lies at an address."""
        for ident in self.btf.named(name):
            about = self.btf.type(ident)
            if about.kind is Kind.FUNC:
                return self.drgn.Object(self.prog, self.type(about.size), address=address)
        return None

    def find_variable(self, name: str, address: int) -> drgn.Object | None:
        """A variable that lies at an address, if its type is known."""
        for ident in self.btf.named(name):
            about = self.btf.type(ident)
            if about.kind is Kind.VAR:
                return self.drgn.Object(self.prog, self.type(about.size), address=address)
        if name in VARIABLES:
            return self.drgn.Object(self.prog, self.prog.type(VARIABLES[name]), address=address)
        return None

    # --- types ---------------------------------------------------------------------------------------

    def type(self, ident: int) -> drgn.Type:
        """A type by its id in BTF; :class:`InputError` for BTF that contradicts itself."""
        if ident == 0:
            return self.prog.void_type()
        if ident not in self._made:
            if self._depth == _DEEPEST:
                raise InputError(f"{self.btf.name}: type {ident} refers to itself")
            self._depth += 1
            try:
                self._made[ident] = self._make(ident, self.btf.type(ident))
            finally:
                self._depth -= 1
        return self._made[ident]

    def _make(self, ident: int, about: BtfType) -> drgn.Type:
        prog, name = self.prog, about.name
        match about.kind:
            case Kind.INT:
                encoding = self.btf.integer(ident)[0]
                if encoding & _BOOL:
                    return prog.bool_type(name, about.size)
                return prog.int_type(name, about.size, bool(encoding & _SIGNED))
            case Kind.FLOAT:
                return prog.float_type(name, about.size)
            case Kind.PTR:
                return prog.pointer_type(self.type(about.size))
            case Kind.ARRAY:
                element, _, count = self.btf.array(ident)
                return prog.array_type(self.type(element), count)
            case Kind.STRUCT | Kind.UNION:
                return self._compound(ident, about)
            case Kind.ENUM | Kind.ENUM64:
                return self._enum(ident, about)
            case Kind.FWD:
                return self._forward(about)
            case Kind.TYPEDEF:
                return prog.typedef_type(name, self.type(about.size))
            case Kind.CONST | Kind.VOLATILE | Kind.RESTRICT:
                return self._qualified(self.type(about.size), self.drgn.Qualifiers[_QUALIFIERS[about.kind]])
            case Kind.TYPE_TAG:
                return self.type(about.size)
            case Kind.FUNC_PROTO:
                return self._function(ident, about)
        raise InputError(f"{self.btf.name}: type {ident}, {about.kind.name} {name}, stands where a type should")

    def _qualified(self, of: drgn.Type, more: drgn.Qualifiers) -> drgn.Type:
        if of.kind == self.drgn.TypeKind.ARRAY:  # in C it is the elements that are const
            return self.prog.array_type(self._qualified(of.type, more), of.length)
        return of.qualified(of.qualifiers | more)

    def _compound(self, ident: int, about: BtfType) -> drgn.Type:
        make = self.prog.struct_type if about.kind is Kind.STRUCT else self.prog.union_type
        members = self.btf.members(ident)
        last = len(members) - 1 if about.kind is Kind.STRUCT else -1
        made = [self._member(member, number == last) for number, member in enumerate(members)]
        return make(about.name or None, about.size, made)

    def _member(self, member: Member, last: bool) -> drgn.TypeMember:
        offset, bits = member.bit_offset, member.bit_size
        whole = self.btf.resolved(member.type)
        if whole and not bits and self.btf.type(whole).kind is Kind.INT:
            # BTF without kind_flag has bit fields as integers with fewer bits than their bytes hold.
            _, extra, size = self.btf.integer(whole)
            if size != 8 * self.btf.type(whole).size:
                offset, bits = offset + extra, size

        def of() -> drgn.Type | drgn.Object:
            if bits:
                return self.drgn.Object(self.prog, self.type(member.type), bit_field_size=bits)
            made = self.type(member.type)
            if last and made.kind == self.drgn.TypeKind.ARRAY and made.length == 0:
                # A flexible one, to which BTF gives no elements.
                return self.prog.array_type(made.type)
            return made

        return self.drgn.TypeMember(of, member.name or None, offset)

    def _enum(self, ident: int, about: BtfType) -> drgn.Type:
        found = self.btf.enumerators(ident)
        if not found:
            return self.prog.enum_type(about.name or None)
        kind = {1: "char", 2: "short", 4: "int", 8: "long"}[about.size]
        of = self.prog.int_type(kind if about.flag else f"unsigned {kind}", about.size, about.flag)
        enumerators = [self.drgn.TypeEnumerator(name, value) for name, value in found]
        return self.prog.enum_type(about.name or None, of, enumerators)

    def _forward(self, about: BtfType) -> drgn.Type:
        kind = Kind.UNION if about.flag else Kind.STRUCT
        for ident in self.btf.named(about.name):
            if self.btf.type(ident).kind is kind:
                return self.type(ident)
        return self.prog.union_type(about.name) if about.flag else self.prog.struct_type(about.name)

    def _function(self, ident: int, about: BtfType) -> drgn.Type:
        def lazily(of: int) -> Callable[[], drgn.Type]:
            return lambda: self.type(of)

        parameters = self.btf.parameters(ident)
        variadic = bool(parameters) and parameters[-1] == ("", 0)
        made = [
            self.drgn.TypeParameter(lazily(of), name or None) for name, of in parameters[: len(parameters) - variadic]
        ]
        return self.prog.function_type(self.type(about.size), made, variadic)


def find_symbols(symbols: KernelSymbols, name: str | None, address: int | None, one: bool) -> list[drgn.Symbol]:
    """What a symbol finder answers to name, address and whether one is enough."""
    import drgn

    found: list[KernelSymbol]
    if name is not None:
        found = symbols.named(name)
        if address is not None:
            found = [symbol for symbol in found if symbol in symbols.at(address)]
    else:
        found = symbols.all() if address is None else symbols.at(address)
    if one:
        found = found[:1]
    binding, kind = drgn.SymbolBinding.UNKNOWN, drgn.SymbolKind.UNKNOWN
    return [drgn.Symbol(symbol.name, symbol.address, symbol.size, binding, kind) for symbol in found]


def register(prog: drgn.Program, learn: Callable[[drgn.Program], tuple[Btf, KernelSymbols] | None]) -> None:
    """Let a Program find what BTF and kallsyms tell, behind whatever else it finds things with.

    ``learn`` is called when something is first looked up, and again as long as
    it answers None.  Registering again is learning anew.  A Program with
    finders stays until the process ends (drgn 0.3.0), with what it has opened.
    """
    again = FINDER in prog.cache
    prog.cache[FINDER] = learn
    if not again:
        prog.register_type_finder(FINDER, _find_type, enable_index=-1)
        prog.register_symbol_finder(FINDER, _find_symbol, enable_index=-1)
        prog.register_object_finder(FINDER, _find_object, enable_index=-1)


def silence(prog: drgn.Program) -> None:
    """Let a Program find nothing by BTF and kallsyms until :func:`register` is called again."""
    if FINDER in prog.cache:
        prog.cache[FINDER] = None


def _known(prog: drgn.Program) -> tuple[DrgnTypes, KernelSymbols] | None:
    kept = prog.cache.get(FINDER)
    if callable(kept):
        # What is looked up to learn, drgn's own questions among it, is not looked up here.
        prog.cache[FINDER] = None
        try:
            learnt = kept(prog)
        finally:
            prog.cache[FINDER] = kept
        if learnt is None:
            return None
        kept = prog.cache[FINDER] = (DrgnTypes(prog, learnt[0]), learnt[1])
    return kept  # type: ignore[no-any-return]


def _find_type(prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None) -> drgn.Type | None:
    got = _known(prog)
    return None if got is None else got[0].find_type(prog, kinds, name, filename)


def _find_symbol(prog: drgn.Program, name: str | None, address: int | None, one: bool) -> list[drgn.Symbol]:
    got = _known(prog)
    return [] if got is None else find_symbols(got[1], name, address, one)


def _find_object(
    prog: drgn.Program, name: str, flags: drgn.FindObjectFlags, filename: str | None
) -> drgn.Object | None:
    import drgn

    got = None if filename else _known(prog)
    if got is None:
        return None
    types, symbols = got
    wanted = drgn.FindObjectFlags
    if flags & wanted.CONSTANT and (constant := types.find_constant(name)) is not None:
        return constant
    for symbol in symbols.named(name)[:1]:
        if flags & wanted.VARIABLE and (variable := types.find_variable(name, symbol.address)) is not None:
            return variable
        if flags & wanted.FUNCTION:
            return types.find_function(name, symbol.address)
    return None
