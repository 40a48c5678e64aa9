"""Says the scene of a picture, or the image that has it; the time may be its adjective."""

from __future__ import annotations

from world.captions.times import Times
from world.captions.words import Place


class Scenes(Times):
    """What a caption says of the scene."""

    def place(self) -> tuple[Place, str]:
        """A noun of the scene and what stands around it: its article is chosen by the caller."""
        assert self.intent.scene is not None  # noqa: S101
        place: Place = self.pick(self.words.scenes[self.intent.scene])
        first = self.adjective(True)
        second = self.adjective(True) if first else ""
        if not second or second == first:
            return place, first
        return place, self.two(first, second)

    def article(self, place: Place) -> str:
        return self.pick(place.articles)

    def slot_S(self) -> str:
        intent = self.intent
        if intent.scene_image is not None:
            if intent.scene is None:
                return self.definite(self.of_image("scene_noun", intent.scene_image))
            place, adjective = self.place()
            noun = self.definite(self.with_adjective(place.noun, adjective))
            return f"{noun} {self.of_image('from', intent.scene_image)}"
        place, adjective = self.place()
        return self.article(place) + self.with_adjective(place.noun, adjective)

    def slot_s(self) -> str:
        intent = self.intent
        if intent.scene_image is not None or self.chance(0.2):
            return self.slot_S()
        place, adjective = self.place()
        return self.with_adjective(place.noun, adjective)

    def slot_p(self) -> str:
        intent = self.intent
        if intent.scene is None:
            assert intent.scene_image is not None  # noqa: S101
            return self.of_image("scene", intent.scene_image)
        if intent.scene_image is None and intent.scene in self.words.places and self.chance(0.15):
            return self.pick(self.words.places[intent.scene])
        place, adjective = self.place()
        noun = self.with_adjective(place.noun, adjective)
        preposition = self.pick(place.prepositions)
        if intent.scene_image is not None:
            source = self.of_image("from", intent.scene_image)
            return f"{preposition} {self.definite(noun)} {source}"
        return f"{preposition} {self.article(place)}{noun}"

    def slot_pw(self) -> str:
        intent = self.intent
        if intent.scene is None or intent.time is None or intent.scene_image or intent.time_image:
            return f"{self.slot_p()} {self.slot_w()}"
        place, _ = self.place()
        noun = self.with_adjective(
            place.noun, self.pick(self.words.times[intent.time]["adjective"])
        )
        return f"{self.pick(place.prepositions)} {self.article(place)}{noun}"
