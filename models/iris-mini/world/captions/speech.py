"""The whole caption: a template with its slots filled, and what is said around it."""

from __future__ import annotations

import re

from world.captions.objects import Objects
from world.captions.scenes import Scenes
from world.captions.templates import DRAWN, Template
from world.captions.words import VERBS

MOST_WORDS = 45


class Speech(Scenes, Objects):
    """One caption in the making, from its template to its last full stop."""

    def say(self, held: bool) -> str:
        intent = self.intent
        template = self.template(held)
        self.leading = template.literals[0] == "" and template.slots[:1] in (("O",), ("o",))
        text = template.literals[0]
        for slot, literal in zip(template.slots, template.literals[1:], strict=True):
            text += getattr(self, f"slot_{slot}")() + literal
        if intent.operation not in DRAWN:
            text = self.instruct(text)
        ended = text.endswith(".")
        if ended:
            text = text[:-1]
        text = self.fill(text)
        return self.finish(text, ended)

    def template(self, held: bool) -> Template:
        intent = self.intent
        choices = self.words.templates[intent.operation, held]
        special = ""
        if len(self.objects) == 1:
            special = "P" if self.objects[0].position is not None else ""
        elif self.objects:
            special = "B"
        says = ""
        if intent.operation in DRAWN:
            has_scene = intent.scene is not None or intent.scene_image is not None
            has_time = intent.time is not None or intent.time_image is not None
            says = ("O" if self.objects else "") + ("S" if has_scene else "")
            says += "T" if has_time else ""
        apart = "".join(sorted(says + special))
        if apart in choices and self.chance(0.3):
            says = apart
        return self.pick(choices[says])

    def instruct(self, text: str) -> str:
        """An instruction with what else the intent says and with politeness around it."""
        intent = self.intent
        if intent.operation != "time" and (intent.time or intent.time_image):
            text += " " + self.slot_w()
        if intent.operation != "scene" and (intent.scene or intent.scene_image):
            text += " " + self.slot_p()
        words = self.words.commands
        if self.chance(0.1) and text[0].islower() and text.split(" ", 1)[0] in VERBS:
            text = f"{self.pick(words['polite'])} {text}"
        if self.chance(0.12):
            text += self.pick(words["keep"])
        return text

    def slot_cmd(self) -> str:
        return self.pick(self.words.commands["paint"])

    def fill(self, text: str) -> str:
        """The text with the words that did not find a noun, and those that need none."""
        words = self.words
        drawn = self.intent.operation in DRAWN
        ends: list[str] = []
        for source in self.adjectives:
            if source == "unknown":
                self.clauses.append(source)
            elif drawn:
                self.tags.append(source)
        for source in self.clauses:
            if source == "unknown":
                join = ", " if drawn and self.chance(0.4) else " "
                ends.append(join + self.pick(words.unknown["clauses"]))
        tags = [
            self.pick((words.unknown if source == "unknown" else words.filler)["tags"])
            for source in self.tags
        ]
        if drawn and self.intent.time is not None and self.chance(0.1):
            # People often say the light twice: "at sunset, photorealistic, golden hour".
            tags.insert(int(self.random() * (len(tags) + 1)), self.time("tag"))
        ends += [f", {tag}" for tag in tags]
        room = MOST_WORDS - 1 - text.count(" ")
        said = {text}
        for end in ends:
            room -= end.count(" ") + 1
            if room > 0 and end not in said:
                said.add(end)
                text += end
        return text

    def finish(self, text: str, ended: bool) -> str:
        if self.chance(0.35):
            text = text[0].upper() + text[1:]
            if ". " in text:
                text = re.sub(r"\. (.)", lambda found: ". " + found[1].upper(), text)
        elif self.chance(0.2):
            text = text.lower()
        if ended or self.chance(0.2):
            text += "."
        return text
