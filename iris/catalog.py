"""What this service offers: the model behind `epithre-iris` and its styles.

Built from `models/registry.toml` by iris.store.registry, read by the routes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """A registered LoRA style, chosen per picture by its name."""

    name: str
    version: str
    description: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """The served base model and its styles, in the order of the registry."""

    base: str  # e.g. "iris-mini"
    base_version: str
    description: str
    styles: tuple[Style, ...]

    @property
    def style_names(self) -> tuple[str, ...]:
        return tuple(style.name for style in self.styles)
