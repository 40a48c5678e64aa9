"""Says the time of a picture, its weather included, or the image that has it."""

from __future__ import annotations

from world.captions.voice import Voice


class Times(Voice):
    """What a caption says of the time."""

    def time(self, form: str) -> str:
        assert self.intent.time is not None  # noqa: S101
        return self.pick(self.words.times[self.intent.time][form])

    def slot_w(self) -> str:
        intent = self.intent
        if intent.time_image is None:
            return self.time("when")
        if intent.time is None:
            return self.of_image("time", intent.time_image)
        return f"{self.time('when')} {self.of_image('like', intent.time_image)}"

    def slot_t(self) -> str:
        intent = self.intent
        if intent.time_image is None:
            return self.time("tag")
        if intent.time is None:
            return self.of_image("time_noun", intent.time_image)
        return f"{self.time('tag')} {self.of_image('like', intent.time_image)}"

    def slot_w_noun(self) -> str:
        intent = self.intent
        return self.definite(self.slot_t()) if intent.time is None else self.slot_t()

    def time_form(self, form: str) -> str:
        """The time in an instruction; with an image it is that image's."""
        intent = self.intent
        if intent.time_image is None:
            return self.time(form)
        if form == "make":
            return self.of_image("like", intent.time_image)
        text = self.of_image(form, intent.time_image)
        return text if intent.time is None else f"{text}, {self.time('tag')}"

    def slot_sky(self) -> str:
        return self.time_form("sky")

    def slot_make(self) -> str:
        return self.time_form("make")

    def slot_into(self) -> str:
        return self.time_form("into")

    def slot_ask(self) -> str:
        return self.time_form("ask")
