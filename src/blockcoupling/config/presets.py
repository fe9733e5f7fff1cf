"""Settings that belong together, under one name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from blockcoupling.errors import UserError


class Preset(NamedTuple):
    """What a preset settles, and which mis-couplings it is about, the first the default one."""

    settings: Mapping[str, Any]
    variants: tuple[str, ...]


PRESETS: Mapping[str, Preset] = {
    # github.com/sugolov/coupling: Jacobians of the whole prompt's pass between the entries of
    # `hidden_states` (the last of which has passed the final norm), each with its full SVD.
    "released": Preset(
        {
            "method": "dense",
            "context": "full",
            "full": True,
            "final_norm": True,
            "swapped": True,
        },
        ("absolute", "absolute_trace", "swapped"),
    ),
}


if TYPE_CHECKING:
    PresetName = str
else:
    PresetName = Literal[tuple(PRESETS)]


def with_preset(
    preset: str | None, given: Mapping[str, Any], default: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings with those of a preset filled in.

    Args:
        preset: its name; None: the settings as they are.
        given: settings by name.
        default: what each of them is when nobody asks for anything.

    Raises:
        UserError: a setting was asked for that is neither the default nor the preset's.
    """
    if preset is None:
        return dict(given)
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}: choose from {', '.join(PRESETS)}")
    settled = PRESETS[preset].settings
    against = [
        f"{name} = {given[name]!r} goes against the preset {preset}, which has {value!r}"
        for name, value in settled.items()
        if name in given and given[name] not in (default.get(name), value)
    ]
    if against:
        raise UserError("\n".join([*against, "Leave the preset out, or these settings."]))
    return {**given, **settled}
