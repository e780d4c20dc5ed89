"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin

import typer

from napari_oneseg.cli import app

__all__ = ["commands"]


def commands() -> str:
    """Return all subcommands of ``oneseg`` with their arguments and options, as markdown."""
    group = typer.main.get_command(app)
    parts = [_text(group.help), *(_subcommand(name, group.commands[name]) for name in group.commands)]
    return "\n\n".join(parts)


def _subcommand(name: str, command: Any) -> str:
    if hasattr(command, "commands"):
        own = [_subcommand(f"{name} {part}", command.commands[part]) for part in command.commands]
        return "\n\n".join([f"## oneseg {name}", _text(command.help), *own])
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    given = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    options = [parameter for parameter in shown if parameter.param_type_name == "option"]
    needed = " ".join(_usage(option) for option in options if option.required)
    places = " ".join(_place(argument) for argument in given)
    usage = " ".join(part for part in ("oneseg", name, places, needed, "[OPTIONS]") if part)
    rows = [(f"`{_place(argument)}`", _text(argument.help)) for argument in given]
    rows += [(_names(option), _told(option)) for option in options]
    table = [f"| {name} | {text} |" for name, text in [("", "meaning"), ("---", "---"), *rows]]
    return "\n\n".join([f"## oneseg {name}", f"```text\n{usage}\n```", _text(command.help), "\n".join(table)])


def _usage(option: Any) -> str:
    return f"{_longest(option)} {_value(option)}"


def _place(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip("{}[]")
    name += "..." if argument.nargs == -1 and not name.endswith("...") else ""
    return name if argument.required else f"[{name}]"


def _longest(option: Any) -> str:
    return max(option.opts, key=len)


def _names(option: Any) -> str:
    """Return how an option is written: ``-o``, ``--output`` and what follows it."""
    opts = sorted(option.opts, key=len)
    value = "" if option.is_flag else f" {_value(option)}"
    names = [f"`{name}`" for name in opts[:-1]] + [f"`{opts[-1]}{value}`"]
    return ", ".join([*names, *(f"`{name}`" for name in option.secondary_opts)])


def _value(option: Any) -> str:
    """Return what stands for the value: what the code calls it, the choices, or the kind of number."""
    if option.metavar:
        return str(option.metavar)
    kind = option.type_descriptor.annotation
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    return {int: "N", float: "X"}.get(kind, "VALUE")


def _told(option: Any) -> str:
    parts = [_text(option.help)]
    if option.required:
        parts.append("**Required.**")
    # Only what was typed as a value has a default to tell.
    elif not option.is_flag and option.default is not None and not callable(option.default):
        parts.append(f"Default: `{option.default}`.")
    return " ".join(parts)


def _text(text: str | None) -> str:
    """Return help as one paragraph each, fit for a table's cell too."""
    paragraphs = re.split(r"\n\s*\n", (text or "").strip())
    return "\n\n".join(" ".join(paragraph.split()).replace("|", "\\|") for paragraph in paragraphs)
