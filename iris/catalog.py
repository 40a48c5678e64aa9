"""What this service offers: the model behind `epithre-iris` and its styles.

Built from `models/registry.toml` by iris.store.registry, read by the routes.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_STRENGTH = 0.6


@dataclass(frozen=True, slots=True)
class Style:
    """A registered LoRA style, chosen per picture by its name."""

    name: str
    version: str
    description: str
    default_strength: float = DEFAULT_STRENGTH  # where a request names none
    trigger: str = ""  # words it was trained with; put before a prompt that lacks them

    def prompt(self, prompt: str) -> str:
        """The prompt with the style's words in it."""
        if not self.trigger or self.trigger.casefold() in prompt.casefold():
            return prompt
        return f"{self.trigger}, {prompt}"


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

    def style(self, name: str | None) -> Style | None:
        """The style of that name; None where there is none."""
        return next((style for style in self.styles if style.name == name), None)

    def prompt(self, style_name: str | None, prompt: str) -> str:
        """The prompt with the words of its style."""
        style = self.style(style_name)
        return prompt if style is None else style.prompt(prompt)


class Offer:
    """The catalog as it is right now; styles that are added while the service runs replace it.

    Who reads it more than once for one request keeps what it read first.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
