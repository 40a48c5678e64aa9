"""The shapes of the sixteen objects, as data on a 100 by 100 sheet with y downwards.

An outline is a string of commands: M x y, L x y, Q x y x y, C x y x y x y and Z as in SVG, and
two closed shapes: O cx cy rx ry is an ellipse, R x y w h r a rectangle with round corners.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layer:
    """One shape of an object; later layers cover earlier ones."""

    tone: str  # body, light, shade, rim (of the object's colour), or a name in objects.ACCENTS
    outline: str
    line: float = 0.0  # width of the stroke for a line; 0 is a filled shape
    main: bool = True  # belongs to the silhouette and gets an outline; else a mark on top of it


def _part(tone: str, outline: str) -> Layer:
    return Layer(tone, outline)


def _mark(tone: str, outline: str) -> Layer:
    return Layer(tone, outline, main=False)


def _rod(tone: str, outline: str, width: float) -> Layer:
    return Layer(tone, outline, line=width)


def _stroke(tone: str, outline: str, width: float) -> Layer:
    return Layer(tone, outline, line=width, main=False)


FIGURES: dict[str, tuple[Layer, ...]] = {
    "house": (
        _part("shade", "R 70 8 13 30 1"),
        _part("body", "M13 44 L87 44 L87 98 L13 98 Z"),
        _part("shade", "M50 3 L98 51 L2 51 Z"),
        _mark("light", "O 50 34 7 7"),
        _part("wood", "M24 98 L24 72 Q24 63 33.5 63 Q43 63 43 72 L43 98 Z"),
        _mark("gold", "O 39 82 2 2"),
        _part("glass", "R 55 62 22 20 2"),
        _stroke("bone", "M66 62 L66 82 M55 72 L77 72", 2.5),
    ),
    "tree": (
        _part("wood", "M41 60 L59 60 L60 88 Q62 96 69 98 L31 98 Q38 96 40 88 Z"),
        _part("body", "O 50 27 25 25 O 27 44 23 23 O 73 44 23 23 O 50 52 26 22"),
        _mark(
            "shade",
            "M8 54 Q26 62 36 54 Q52 70 66 55 Q78 64 93 54 Q84 68 71 67 Q60 76 50 74"
            "Q40 76 30 67 Q15 68 8 54 Z",
        ),
        _mark("light", "O 42 22 12 10 O 25 38 9 8 O 68 37 9 7"),
    ),
    "boat": (
        _rod("wood", "M50 4 L50 74", 4.5),
        _part("light", "M54 6 Q84 32 92 66 L54 66 Z"),
        _part("body", "M46 14 Q30 44 10 66 L46 66 Z"),
        _part("body", "M2 72 L98 72 Q92 92 78 97 L24 97 Q8 92 2 72 Z"),
        _mark("shade", "M7 84 L93 84 Q87 93 78 97 L24 97 Q13 93 7 84 Z"),
    ),
    "car": (
        _part(
            "body",
            "M3 66 Q3 56 13 54 L23 52 L34 30 Q36 26 42 26 L64 26 Q69 26 72 30 L82 52"
            "L90 54 Q98 57 98 67 L98 79 Q98 85 92 85 L9 85 Q3 85 3 79 Z",
        ),
        _mark("shade", "M3 73 L98 73 L98 79 Q98 85 92 85 L9 85 Q3 85 3 79 Z"),
        _part("glass", "M32 52 L41 33 L52 33 L52 52 Z"),
        _part("glass", "M57 33 L65 33 L74 52 L57 52 Z"),
        _stroke("shade", "M54.5 54 L54.5 73", 1.8),
        _mark("gold", "O 93 63 4 5"),
        _mark("brick", "R 3 60 5 9 2"),
        _part("coal", "O 25 84 14 14"),
        _part("coal", "O 75 84 14 14"),
        _mark("steel", "O 25 84 6.5 6.5 O 75 84 6.5 6.5"),
    ),
    "cat": (
        _rod("shade", "M66 92 Q96 94 92 68 Q90 57 82 56", 10),
        _part("body", "M46 44 C66 44 78 72 76 98 L16 98 C14 72 26 44 46 44 Z"),
        _mark("light", "O 46 68 13 16"),
        _part("shade", "R 26 87 18 11 5"),
        _part("shade", "R 48 87 18 11 5"),
        _part(
            "body",
            "M15 38 Q14 30 17 24 Q16 12 19 3 Q29 6 36 13 Q46 10 56 13 Q63 6 73 3 Q76 12 75 24"
            "Q78 30 77 38 C76 62 16 62 15 38 Z",
        ),
        _mark("rose", "M21 21 Q21 14 23 9 Q28 12 32 16 Z M71 21 Q71 14 69 9 Q64 12 60 16 Z"),
        _mark("light", "O 46 47 13 8"),
        _mark("cream", "O 33 33 7 8 O 59 33 7 8"),
        _mark("coal", "O 34 33 3.5 6.5 O 58 33 3.5 6.5"),
        _mark("rose", "M42 43 L50 43 L46 48 Z"),
        _stroke("rim", "M28 46 L8 43 M28 50 L9 53 M64 46 L84 43 M64 50 L83 53", 1.5),
    ),
    "samurai": (
        _part("steel", "M80 60 Q92 36 91 6 L97 3 Q98 38 86 62 Z"),
        _rod("coal", "M82 62 L76 80", 5.5),
        _part("coal", "R 32 82 14 12 1"),
        _part("coal", "R 54 82 14 12 1"),
        _part("shade", "M30 90 L47 90 L47 98 L25 98 Q25 93 30 90 Z"),
        _part("shade", "M70 90 L53 90 L53 98 L75 98 Q75 93 70 90 Z"),
        _part("body", "M32 64 L68 64 L80 87 L20 87 Z"),
        _stroke("shade", "M43 68 L39 87 M57 68 L61 87", 2.4),
        _part("skin", "O 18 68 6 6"),
        _part("skin", "O 80 65 6 6"),
        _part("body", "M34 40 L66 40 L69 66 L31 66 Z"),
        _stroke("light", "M36 48 L64 48 M35 55 L65 55", 2.4),
        _part("gold", "R 30 61 40 7 2"),
        _part("shade", "M14 42 Q24 36 35 41 L32 64 L9 64 Z"),
        _part("shade", "M86 42 Q76 36 65 41 L68 64 L91 64 Z"),
        _stroke("light", "M13 49 L33 49 M11 57 L32 57 M87 49 L67 49 M89 57 L68 57", 2.4),
        _part("shade", "M32 22 L68 22 L80 41 L20 41 Z"),
        _part("skin", "M38 24 L62 24 L62 36 Q60 44 50 44 Q40 44 38 36 Z"),
        _part("body", "M30 28 Q30 8 50 8 Q70 8 70 28 Q50 22 30 28 Z"),
        _mark("coal", "O 45 32 2 2.4 O 55 32 2 2.4 R 45 38.5 10 1.8 0.8"),
        _part("gold", "M50 23 Q30 20 24 2 Q38 12 50 13 Q62 12 76 2 Q70 20 50 23 Z"),
    ),
    "balloon": (
        _rod("wood", "M41 74 L43 90 M59 74 L57 90", 2),
        _part(
            "body",
            "M50 2 C78 2 92 20 92 38 C92 56 68 66 61 77 L39 77 C32 66 8 56 8 38C8 20 22 2 50 2 Z",
        ),
        _part(
            "light",
            "M50 2 C67 2 76 20 76 38 C76 56 61 66 57 77 L43 77 C39 66 24 56 24 38"
            "C24 20 33 2 50 2 Z",
        ),
        _part(
            "body",
            "M50 2 C57 2 61 20 61 38 C61 56 55 66 53 77 L47 77 C45 66 39 56 39 38"
            "C39 20 43 2 50 2 Z",
        ),
        _part("shade", "R 38 74 24 5 2"),
        _part("wood", "M38 86 L62 86 L60 96 Q60 98 57 98 L43 98 Q40 98 40 96 Z"),
    ),
    "cup": (
        _stroke("steam", "M31 24 Q24 18 31 12 Q37 7 32 2 M51 24 Q44 18 51 12 Q57 7 52 2", 4.5),
        _rod("shade", "M70 48 Q94 44 93 62 Q92 80 68 82", 9),
        _part("body", "M8 36 L75 36 L72 88 Q71 98 61 98 L22 98 Q12 98 11 88 Z"),
        _mark("shade", "M62 36 L75 36 L72 88 Q71 98 61 98 L52 98 Q60 96 61 88 Z"),
        _mark("light", "R 17 50 7 34 3.5"),
        _part("light", "O 41.5 36 33.5 8"),
        _part("coffee", "O 41.5 36.5 28 5.5"),
    ),
    "lamp": (
        _part("brass", "R 46.5 54 7 38 1"),
        _mark("glow", "O 50 57 13 9"),
        _part("body", "M31 3 L69 3 L94 58 L6 58 Z"),
        _mark("light", "M40 3 L52 3 L52 58 L26 58 Z"),
        _mark("shade", "M8.7 52 L91.3 52 L94 58 L6 58 Z"),
        _part("shade", "M24 98 Q24 86 50 86 Q76 86 76 98 Z"),
    ),
    "bottle": (
        _part("wood", "R 42 2 16 12 2"),
        _part(
            "body",
            "M41 12 L59 12 L59 32 Q59 39 67 44 Q76 49 76 58 L76 91 Q76 98 69 98 L31 98"
            "Q24 98 24 91 L24 58 Q24 49 33 44 Q41 39 41 32 Z",
        ),
        _mark(
            "shade",
            "M52 12 L59 12 L59 32 Q59 39 67 44 Q76 49 76 58 L76 91 Q76 98 69 98 L62 98"
            "Q67 96 67 90 L67 59 Q67 51 60 46 Q52 40 52 32 Z",
        ),
        _mark("light", "R 30 54 6 40 3"),
        _part("shade", "R 38 11 24 7 2"),
        _mark("shade", "R 24 61.5 52 23 0.5"),
        _part("cream", "R 24 63.5 52 19 0.5"),
        _mark("shade", "O 50 73 6.5 6.5"),
    ),
    "bird": (
        _part("shade", "M44 60 Q50 26 74 8 Q82 34 70 60 Z"),
        _part("shade", "M30 60 L2 54 L8 66 L3 80 L32 76 Z"),
        _part("body", "M20 66 Q34 52 58 54 Q64 44 76 44 Q90 45 90 58 Q88 86 56 87 Q32 87 20 66 Z"),
        _mark("light", "M40 80 Q66 82 84 70 Q76 87 56 87 Q46 87 40 80 Z"),
        _part("beak", "M88 51 L99 58 L88 64 Z"),
        _part("body", "M32 66 Q10 38 16 5 Q52 20 64 62 Q50 78 32 66 Z"),
        _mark("light", "M34 58 Q20 38 21 14 Q42 26 52 56 Q44 64 34 58 Z"),
        _mark("cream", "O 79 54 4.5 4.5"),
        _mark("coal", "O 80 54 2.8 2.8"),
    ),
    "flower": (
        _rod("leaf", "M50 70 L50 96", 5.5),
        _part("leaf", "M50 97 Q26 98 16 78 Q42 76 50 97 Z"),
        _part("leaf", "M50 97 Q74 98 84 78 Q58 76 50 97 Z"),
        _part("body", "O 50 62 17 17 O 31 29 17 17 O 69 29 17 17"),
        _mark("shade", "O 50 18.5 17 17 O 31 51 17 17 O 69 51 17 17"),
        _part("body", "O 50 17.5 15.5 15.5 O 30 51.5 15.5 15.5 O 70 51.5 15.5 15.5 O 50 40 16 16"),
        _mark("light", "O 50 12 8 6 O 27 53 7 6 O 73 53 7 6"),
        _mark("shade", "O 50 40 15 15"),
        _part("centre", "O 50 40 12 12"),
    ),
    "temple": (
        _rod("gold", "M50 3 L50 14", 4),
        _part("stone", "R 12 93 76 5 1"),
        _part("light", "R 24 76 52 18 0.5"),
        _part("coal", "M42 94 L42 86 Q42 80 50 80 Q58 80 58 86 L58 94 Z"),
        _part("body", "M33 61 Q26 74 2 66 Q8 81 22 81 L78 81 Q92 81 98 66 Q74 74 67 61 Z"),
        _part("light", "R 31 50 38 14 0.5"),
        _part("body", "M37 36 Q30 48 10 41 Q16 55 28 55 L72 55 Q84 55 90 41 Q70 48 63 36 Z"),
        _part("light", "R 36 27 28 12 0.5"),
        _part("body", "M46 8 Q40 26 19 18 Q24 32 34 32 L66 32 Q76 32 81 18 Q60 26 54 8 Z"),
        _mark(
            "shade",
            "M11 75 L89 75 Q84 81 78 81 L22 81 Q16 81 11 75 Z"
            "M18 50 L82 50 Q78 55 72 55 L28 55 Q22 55 18 50 Z"
            "M26 28 L74 28 Q70 32 66 32 L34 32 Q30 32 26 28 Z",
        ),
    ),
    "umbrella": (
        _rod("wood", "M50 4 L50 86 Q50 95 60 95 Q69 95 69 85", 5),
        _part(
            "body",
            "M2 55 C4 22 26 9 50 9 C74 9 96 22 98 55 Q86 46 74 55 Q62 46 50 55"
            "Q38 46 26 55 Q14 46 2 55 Z",
        ),
        _part("light", "M50 9 C34 14 26 34 26 55 Q38 46 50 55 Z"),
        _part("shade", "M50 9 C66 14 74 34 74 55 Q86 46 98 55 C96 22 74 9 50 9 Z"),
    ),
    "chair": (
        _part("shade", "M73 62 L82 64 L82 90 L73 90 Z"),
        _part("shade", "M10 58 L20 58 L20 92 L10 92 Z"),
        _part(
            "body", "M10 8 Q10 3 15 3 L57 3 Q62 3 62 8 L62 56 L52 56 L52 18 L20 18 L20 62 L10 62 Z"
        ),
        _part("body", "M19 26 L53 26 L53 37 L19 37 Z"),
        _part("body", "M35 72 L45 72 L45 98 L35 98 Z"),
        _part("body", "M82 69 L92 69 L92 96 L82 96 Z"),
        _part("shade", "M10 56 L35 70 L92 65 L92 73 L35 78 L10 64 Z"),
        _part("light", "M10 56 L62 51 L92 65 L35 71 Z"),
    ),
    "fish": (
        _part("shade", "M30 32 Q44 10 70 15 Q62 26 68 40 Z"),
        _part("shade", "M42 82 Q46 98 62 97 Q60 88 62 80 Z"),
        _part("shade", "M76 57 Q84 32 98 26 Q91 57 98 90 Q84 82 76 57 Z"),
        _part("body", "M2 58 Q20 26 48 26 Q72 28 85 53 L85 62 Q72 89 48 90 Q20 90 2 58 Z"),
        _mark("light", "M9 67 Q40 84 78 72 Q66 90 48 90 Q24 90 9 67 Z"),
        _stroke("shade", "M36 36 Q46 57 36 78", 3.5),
        _mark("shade", "M46 62 Q58 54 66 66 Q56 76 46 62 Z"),
        _mark("cream", "O 22 50 7 7"),
        _mark("coal", "O 21 50 4 4"),
        _stroke("shade", "M4 61 Q10 66 15 63", 2.5),
    ),
}
