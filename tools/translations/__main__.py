# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the catalogs of translations with the texts of the add-on.

python -m tools.translations            # report what is missing, obsolete or wrong; status 1 if anything is
python -m tools.translations --write    # add missing texts with an empty translation, remove obsolete ones
"""

from __future__ import annotations

import argparse

from .catalogs import HOW, LANGUAGES, all_texts, faults, write_catalog


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.translations", description=HOW)
    parser.add_argument("--write", action="store_true", help="update the files of all languages")
    chosen = parser.parse_args()
    texts = all_texts()
    if chosen.write:
        for language in LANGUAGES:
            write_catalog(language, texts)
    found = [fault for language in LANGUAGES for fault in faults(language, texts)]
    print("\n".join(found) or f"{len(texts)} texts in {len(LANGUAGES)} languages: complete")
    if found:
        print(HOW)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
