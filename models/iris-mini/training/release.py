"""Put the next version in the place of the one that is served, and say what the registry needs.

    python -m training.release

What is served is named by hash in models/registry.toml: other files need a new version there.
"""

from __future__ import annotations

import shutil

from iris.store.digest import folder_sha256
from training.folders import MODEL, NEXT


def main() -> None:
    parts = ("weights", "styles", "results.json", "contact-sheet.png")
    missing = [part for part in parts if not (NEXT / part).exists()]
    if missing:
        raise SystemExit(
            f"{NEXT} lacks {', '.join(missing)}: run `make mini-train`, `make mini-styles` and "
            "`make mini-eval` first."
        )
    for part in parts:
        source, place = NEXT / part, MODEL / part
        if source.is_dir():
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(source, place)
        else:
            shutil.copyfile(source, place)
    print("models/registry.toml: raise the versions, and set sha256 to")
    for folder in (MODEL / "weights", *sorted((MODEL / "styles").iterdir())):
        print(f"  {folder.relative_to(MODEL)}: {folder_sha256(folder)}")


if __name__ == "__main__":
    main()
