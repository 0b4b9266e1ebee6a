# SPDX-License-Identifier: GPL-3.0-or-later
"""How a prompt is read for a model with a fixed vocabulary: one rule for the panel, the command line and the server.

Case, punctuation, articles, plurals and synonyms are resolved to the model's own words, and the caption is written as
in the model's training: "The CRIMSON couches!" -> "a red sofa". Unknown words are named. A model without a vocabulary
gets every prompt as it was typed.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .capabilities import ModelInfo

ARTICLES = frozenset(("a", "an", "the", "some", "this", "that", "my", "your", "one"))
FILLERS = frozenset(("color", "colour", "colored", "coloured"))  # "a red colored chair" names a color anyway
# Words that guidance adds to prompts, by kind, where a vocabulary does not state one.
ADDED = {"untextured": "look"} | dict.fromkeys(
    ("view", "front", "side", "back", "overhead", "left", "right", "top", "above", "below"), "view"
)
SINGLE_KINDS = ("color", "prop")  # of these a caption names one
LONGEST_PHRASE = 3  # words of a synonym
QUOTES = dict.fromkeys((0x2018, 0x2019, 0x02BC, 0x00B4, 0x0060), "'")  # code points of other apostrophes


@dataclass(frozen=True)
class PromptVocabulary:
    """The words of a model; with no `words` it takes any prompt.

    `kinds` maps words to "color", "prop", "look" or "view"; `synonyms` maps other words, or phrases of up to three
    words, to a word of the model. All in lower case.
    """

    words: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    synonyms: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    def kind(self, word: str) -> str:
        """ "color", "prop", "look", "view", or "" for a word of no kind."""
        return self.kinds.get(word, ADDED.get(word, ""))

    def of_kind(self, kind: str) -> list[str]:
        """The model's words of that kind, in its own order."""
        return [word for word in self.words if self.kind(word) == kind]


def model_vocabulary(model: ModelInfo) -> PromptVocabulary:
    """The vocabulary that a server sent with its models."""
    return PromptVocabulary(model.vocabulary, model.word_kinds, model.synonyms, model.examples)


@dataclass(frozen=True)
class PromptReading:
    """A prompt in the model's words: `text`, which words were replaced by which, and which are unknown.

    `fault` says in one line why the prompt cannot be used, "" when it can; `notice` what was replaced, "" for nothing
    worth saying.
    """

    text: str
    unknown: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    fault: str = ""
    notice: str = ""


def read_prompt(prompt: str, vocabulary: PromptVocabulary) -> PromptReading:
    """The prompt in the model's own words.

    Prompts that differ in case, blanks, punctuation or articles only have equal texts. Nothing is raised: what makes a
    prompt unusable is in `fault`.
    """
    if not vocabulary.words:
        return PromptReading(prompt)
    found: list[str] = []
    unknown: list[str] = []
    replaced: list[tuple[str, str]] = []
    for typed, word in _resolve(_tokens(prompt), vocabulary):
        if word is None:
            unknown.append(typed)
            continue
        found.append(word)
        if typed != word:
            replaced.append((typed, word))
    if unknown:
        names = tuple(dict.fromkeys(unknown))
        return PromptReading(prompt, names, tuple(replaced), _unknown_fault(names, vocabulary))
    if not found and prompt.strip():
        return PromptReading(prompt, fault=f"the prompt names nothing; describe an object{_examples(vocabulary)}")
    several = _several(found, vocabulary)
    substituted = {word for typed, word in replaced if not _is_plural(typed, word)}
    if several and any(substituted & set(words) for words in several.values()):
        return PromptReading(prompt, (), tuple(replaced), _conflict_fault(several, replaced, vocabulary))
    notices = [_replacement_notice(replaced)] if replaced else []
    notices += [
        f"the prompt names {len(words)} {kind}s ({', '.join(words)}), and the model was trained on one"
        for kind, words in several.items()
    ]
    return PromptReading(_caption(found, vocabulary), (), tuple(replaced), "", "; ".join(notices))


def _tokens(prompt: str) -> list[str]:
    """Words in lower case, with inner hyphens; punctuation and articles are left out, symbols are words."""
    text = unicodedata.normalize("NFKC", prompt.translate(QUOTES)).casefold()
    text = "".join("-" if unicodedata.category(c) == "Pd" else c for c in text)
    text = re.sub(r"'s(?![^\W_])", " ", text)  # a possessive
    kept = "".join(c if _is_word_character(c) else " " for c in text)
    tokens = (token.strip("-") for token in kept.split())
    return [token for token in tokens if token and token not in ARTICLES and token not in FILLERS]


def _is_word_character(c: str) -> bool:
    """Letters, digits, marks, hyphens, and symbols such as emoji, which must not vanish without a word."""
    if c == "-" or c.isalnum():
        return True
    return c not in string.punctuation and unicodedata.category(c)[0] not in "PZC"


def _resolve(tokens: Sequence[str], vocabulary: PromptVocabulary) -> Iterator[tuple[str, str | None]]:
    """Pairs of a typed word or phrase and the model's word, None for an unknown one; the longest phrase wins."""
    position = 0
    while position < len(tokens):
        for length in range(min(LONGEST_PHRASE, len(tokens) - position), 0, -1):
            typed = " ".join(tokens[position : position + length])
            word = _known(typed, vocabulary)
            if word is not None:
                yield typed, word
                position += length
                break
        else:
            token = tokens[position]
            position += 1
            parts = [part for part in token.split("-") if part and part not in ARTICLES and part not in FILLERS]
            resolved = list(_resolve(parts, vocabulary)) if "-" in token else []
            if resolved and all(word is not None for _, word in resolved):
                yield from resolved
            else:
                yield token, None


def _known(typed: str, vocabulary: PromptVocabulary) -> str | None:
    """The model's word for a word or phrase, its singular, or its parts written as one."""
    words = vocabulary.words
    spelled = typed.replace("-", " ")
    for text in dict.fromkeys((typed, spelled, spelled.replace(" ", ""))):
        for form in (text, *_singulars(text)):
            if form in words:
                return form
            if form in vocabulary.synonyms:
                return vocabulary.synonyms[form]
    return None


def _singulars(word: str) -> list[str]:
    """What a regular English plural may be the plural of; irregular ones are synonyms of the vocabulary."""
    forms = []
    if word.endswith("ies") and len(word) > 4:
        forms.append(word[:-3] + "y")
    if word.endswith("ves"):
        forms += [word[:-3] + "f", word[:-3] + "fe"]
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        forms.append(word[:-2])
    if word.endswith("men"):
        forms.append(word[:-3] + "man")
    if word.endswith("s") and not word.endswith("ss") and len(word) > 2:
        forms.append(word[:-1])
    return forms


def _is_plural(typed: str, word: str) -> bool:
    spelled = typed.replace("-", " ")
    return word in {form for text in (spelled, spelled.replace(" ", "")) for form in (text, *_singulars(text))}


def _several(found: Sequence[str], vocabulary: PromptVocabulary) -> dict[str, list[str]]:
    """Kinds of which a caption names one and the prompt names more, with the different words."""
    named = {kind: list(dict.fromkeys(w for w in found if vocabulary.kind(w) == kind)) for kind in SINGLE_KINDS}
    return {kind: words for kind, words in named.items() if len(words) > 1}


def _caption(found: Sequence[str], vocabulary: PromptVocabulary) -> str:
    """A caption as in training: article, color, prop; then the look; then the view."""
    named = [word for word in found if vocabulary.kind(word) not in ("look", "view")]
    named = [word for index, word in enumerate(named) if word not in named[:index] or not vocabulary.kind(word)]
    if [vocabulary.kind(word) for word in named] == ["prop", "color"]:
        named.reverse()
    if named:
        article = "an" if named[0][0] in "aeiou" and "an" in vocabulary.words else "a"
        named = [article, *named] if article in vocabulary.words else named
    looks = dict.fromkeys(word for word in found if vocabulary.kind(word) == "look")
    view = [word for word in found if vocabulary.kind(word) == "view"]
    separator = ", " if "," in vocabulary.words else " "
    return separator.join(filter(None, (" ".join(named), *looks, " ".join(view))))


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words)


def _replacement_notice(replaced: Sequence[tuple[str, str]]) -> str:
    typed, read = (" ".join(part) for part in zip(*replaced, strict=True))
    return f"reads {typed!r} as {read!r}"


def _knows(vocabulary: PromptVocabulary) -> str:
    groups = [f"the {kind}s {', '.join(words)}" for kind in SINGLE_KINDS if (words := vocabulary.of_kind(kind))]
    return f"it knows {' and '.join(groups) if groups else 'the words ' + ' '.join(vocabulary.words)}"


def _examples(vocabulary: PromptVocabulary) -> str:
    return f", as in {_quoted(vocabulary.examples[:3])}" if vocabulary.examples else ""


def _unknown_fault(unknown: Sequence[str], vocabulary: PromptVocabulary) -> str:
    candidates = [*vocabulary.words, *vocabulary.synonyms]
    close = dict.fromkeys(hit for word in unknown for hit in difflib.get_close_matches(word, candidates, n=1))
    hint = f" (did you mean {', '.join(close)}?)" if close else ""
    return (
        f"this model does not know {_quoted(unknown)}{hint}; {_knows(vocabulary)}{_examples(vocabulary)}; "
        "use its words, or a model like DeepFloyd IF, which knows every word"
    )


def _conflict_fault(
    several: Mapping[str, Sequence[str]], replaced: Sequence[tuple[str, str]], vocabulary: PromptVocabulary
) -> str:
    kind, words = next(iter(several.items()))
    typed = {word: text for text, word in replaced}
    named = ", ".join(f"{typed[word]!r} (read as {word!r})" if word in typed else repr(word) for word in words)
    return f"the prompt names {len(words)} {kind}s, {named}; allowed is one{_examples(vocabulary)}; choose one of them"
