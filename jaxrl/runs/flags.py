"""Flags from dataclasses, by tyro; every mistake becomes one line."""

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_origin

import tyro

from jaxrl.runs.config import whole
from jaxrl.runs.errors import UsageError

BOOLS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def parse(default: Any, args: Sequence[str], prog: str, description: str) -> Any:
    """The dataclass instance `default` with what the flags `args` change. Prints help and exits 0 on --help.

    Raises UsageError. Booleans take a value, integers may be written 1e6 and 1_000_000.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found, rest = tyro.cli(
                type(default),
                args=list(args),
                default=default,
                prog=prog,
                description=description,
                return_unknown_args=True,
                registry=_registry(),
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{_first_sentence(said.getvalue())}; see {prog} --help") from None
    if rest:
        raise UsageError(f"{_unknown(rest, flags_of(default))}; see {prog} --help")
    return found


def environment(signature: Mapping[str, Any]) -> Any:
    """A dataclass instance of an environment's settings, by the registry's signature: what text can say."""
    fields = []
    for name, (kind, default) in signature.items():
        if kind not in (bool, int, float, str) and get_origin(kind) is not tuple:
            continue
        fields.append((name, kind, dataclasses.field(default=default)))
    return dataclasses.make_dataclass("Environment", fields, frozen=True)()


def group(name: str = "", values: bool = True) -> Any:
    """How a group of settings shows: under a prefix or none, its booleans with a value or as switches."""
    markers = [tyro.conf.FlagConversionOff] if values else []
    return (tyro.conf.arg(name=name), *markers)


def flags_of(config: Any, prefix: str = "") -> list[str]:
    """Every flag of a dataclass instance."""
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        hidden = any(getattr(mark, "name", None) == "" for mark in getattr(field.type, "__metadata__", ()))
        name = prefix if hidden else f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            found += flags_of(value, name if hidden else f"{name}.")
        else:
            found.append(f"--{name}")
    return found


def together(**groups: tuple[Any, Any]) -> Any:
    """One dataclass instance of several: name=(instance, `group(...)`)."""
    fields = [
        (name, Annotated[type(value), *marks], dataclasses.field(default=value))
        for name, (value, marks) in groups.items()
    ]
    return dataclasses.make_dataclass("Options", fields, frozen=True)()


def _unknown(rest: list[str], flags: list[str]) -> str:
    given = next((word for word in rest if word.startswith("-")), None)
    if given is None:
        return f"unexpected argument {rest[0]!r}"
    given = given.partition("=")[0]
    wanted = given.replace("_", "-")
    last = {flag.rpartition(".")[2].removeprefix("--"): flag for flag in reversed(flags)}
    near = difflib.get_close_matches(wanted, flags, n=1, cutoff=0.7)
    word = difflib.get_close_matches(wanted.rpartition(".")[2].removeprefix("--"), last, n=1, cutoff=0.75)
    if word and (not near or word[0] == wanted.removeprefix("--")):
        near = [last[word[0]]]
    return f"unknown flag {given}" + (f"; did you mean {near[0]}?" if near else "")


def _first_sentence(box: str) -> str:
    """What tyro says in the first part of its box of text."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        text = line.strip("│|╭╮╰╯+ ")
        if set(text) & set("─"):
            if lines:
                break
            continue
        lines.append(text.strip())
    return " ".join(lines).rstrip(".") or "the arguments cannot be read"


def _registry() -> tyro.constructors.ConstructorRegistry:
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def numbers(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec | None:
        reader = {int: whole, float: _real, bool: _truth}.get(info.type)
        if reader is None or info.type is bool and tyro.conf.FlagConversionOff not in info.markers:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar={int: "INT", float: "FLOAT", bool: "{True,False}"}[info.type],
            instance_from_str=lambda words: reader(words[0]),
            is_instance=lambda value: isinstance(value, info.type),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number (such as 0.5 or 1e-3)") from None


def _truth(text: str) -> bool:
    if text.lower() not in BOOLS:
        raise ValueError(f"{text!r} is neither True nor False")
    return BOOLS[text.lower()]
