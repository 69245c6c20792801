"""Caption metrics: METEOR, ROUGE, BLEU and CIDEr of one caption against its references.

METEOR (Banerjee & Lavie 2005, aclanthology.org/W05-0909) and BLEU (Papineni et al. 2002,
doi:10.3115/1073083.1073135) from nltk, ROUGE (Lin 2004, aclanthology.org/W04-1013) from
rouge-score, CIDEr-D (Vedantam et al. 2015, doi:10.1109/CVPR.2015.7299087) here, since its package
brings Java archives of 100 MB.

What differs: words are runs of a-z and 0-9 in lower case, where the COCO scripts call a Java
tokenizer. METEOR aligns equal words and equal stems and knows no synonyms (WordNet would be a
download), so its values are a little lower than with them. BLEU is that of single sentences, so that
it has an interval over pictures; published values are of a whole corpus.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias

WORD = re.compile(r"[a-z0-9]+")
CIDER_ORDER = 4
CIDER_SIGMA = 6.0

#: One caption and its references (at least one) to a score.
TextMetric: TypeAlias = Callable[[str, tuple[str, ...]], float]


@lru_cache(maxsize=100_000)
def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a caption: runs of letters a-z and digits, in lower case."""
    return tuple(WORD.findall(text.lower()))


class _Tokens:
    """Gives rouge-score the words of `words_of`, which are its own, without splitting them again."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        return list(words_of(text))


class _Stems:
    """The Porter stemmer of nltk, which remembers the words it has seen."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(maxsize=100_000)(PorterStemmer().stem)


class _NoSynonyms:
    """Stands where nltk asks for WordNet, so that no word has a synonym on any machine."""

    def synsets(self, word: str) -> list[Any]:
        """Return no sense of the word."""
        return []


@lru_cache(maxsize=1)
def _meteor_parts() -> tuple[Any, _Stems, _NoSynonyms]:
    from nltk.translate.meteor_score import meteor_score

    return meteor_score, _Stems(), _NoSynonyms()


def meteor(caption: str, references: tuple[str, ...]) -> float:
    """METEOR of the best reference, 0..1: (1 - .5 (chunks / matches)^3) P R / (.9 P + .1 R)."""
    score, stemmer, wordnet = _meteor_parts()
    truths = [words_of(text) for text in references]
    return float(score(truths, words_of(caption), stemmer=stemmer, wordnet=wordnet))


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], tokenizer=_Tokens())


@lru_cache(maxsize=65_536)
def _rouge(caption: str, references: tuple[str, ...]) -> tuple[float, float]:
    scores = _rouge_scorer().score_multi(references, caption)
    return float(scores["rouge1"].fmeasure), float(scores["rougeL"].fmeasure)


def rouge1(caption: str, references: tuple[str, ...]) -> float:
    """F of single words, of the best reference, no stemming, 0..1."""
    return _rouge(caption, references)[0]


def rouge_l(caption: str, references: tuple[str, ...]) -> float:
    """F of the longest common subsequence of words, of the best reference, no stemming, 0..1."""
    return _rouge(caption, references)[1]


@lru_cache(maxsize=65_536)
def _bleu(caption: str, references: tuple[str, ...]) -> tuple[float, float]:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if not words_of(caption):
        return 0.0, 0.0
    truths = [words_of(text) for text in references]
    weights = [(1.0,), (0.25,) * 4]
    scores = sentence_bleu(truths, words_of(caption), weights, SmoothingFunction().method1)
    return float(scores[0]), float(scores[1])


def bleu1(caption: str, references: tuple[str, ...]) -> float:
    """BLEU of single words of one sentence against all its references, 0..1."""
    return _bleu(caption, references)[0]


def bleu4(caption: str, references: tuple[str, ...]) -> float:
    """BLEU of up to four words of one sentence against all its references, 0..1.

    A zero count of n-grams longer than a word counts as 0.1 (method 1 of Chen & Cherry 2014,
    doi:10.3115/v1/W14-3346).
    """
    return _bleu(caption, references)[1]


class Cider:
    """CIDEr-D, 0..10, with document frequencies of one set of references.

    With g_n the vector of n-gram counts times log(N / df), df the number of pictures whose
    references have the n-gram and N that of all pictures, c the caption and r a reference:

        score = 10 / 4 sum_n mean_r exp(-(l_c - l_r)^2 / (2 6^2))
                min(g_n(c), g_n(r)) . g_n(r) / (norm(g_n(c)) norm(g_n(r)))

    Lengths l are numbers of pairs of words, as in the COCO scripts.

    Parameters
    ----------
    references : sequence of sequence of str
        Of all pictures of the evaluation: the score of one caption depends on the others'
        references.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self._log_n = math.log(max(1, len(references)))
        self._frequency = Counter(
            chain.from_iterable(set(chain(*map(_ngrams, texts))) for texts in references)
        )
        self._vectors: dict[str, tuple[list[dict[tuple[str, ...], float]], list[float], int]] = {}

    def __call__(self, caption: str, references: tuple[str, ...]) -> float:
        """Score a caption against the references of one picture."""
        total = 0.0
        mine, my_norms, my_length = self._vector(caption)
        for reference in references:
            other, other_norms, other_length = self._vector(reference)
            penalty = math.exp(-((my_length - other_length) ** 2) / (2 * CIDER_SIGMA**2))
            for n in range(CIDER_ORDER):
                if my_norms[n] and other_norms[n]:
                    shared = sum(
                        min(value, other[n][gram]) * other[n][gram]
                        for gram, value in mine[n].items()
                        if gram in other[n]
                    )
                    total += penalty * shared / (my_norms[n] * other_norms[n])
        return 10 * total / CIDER_ORDER / len(references)

    def _vector(self, text: str) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        if text not in self._vectors:
            vector: list[dict[tuple[str, ...], float]] = [{} for _ in range(CIDER_ORDER)]
            for gram, count in Counter(_ngrams(text)).items():
                rarity = self._log_n - math.log(max(1, self._frequency[gram]))
                vector[len(gram) - 1][gram] = count * rarity
            norms = [math.sqrt(sum(v * v for v in part.values())) for part in vector]
            self._vectors[text] = vector, norms, max(0, len(words_of(text)) - 1)
        return self._vectors[text]


def _ngrams(text: str) -> Iterable[tuple[str, ...]]:
    words = words_of(text)
    for n in range(1, CIDER_ORDER + 1):
        for start in range(len(words) - n + 1):
            yield words[start : start + n]


def text_metrics(references: Sequence[Sequence[str]]) -> dict[str, TextMetric]:
    """Return the metrics of words by name, for captions of pictures with these references.

    Parameters
    ----------
    references : sequence of sequence of str
        Of all pictures of the evaluation.
    """
    return {
        "meteor": meteor,
        "rouge1": rouge1,
        "rougel": rouge_l,
        "bleu1": bleu1,
        "bleu4": bleu4,
        "cider": Cider(references),
    }


def first_named(caption: str, values: Iterable[str]) -> str:
    """Return which of some values a caption names first; an empty string where it names none.

    ``a red face on a light blue background`` names, of all colours, red first. Of values that begin
    at the same word the longest counts.

    Parameters
    ----------
    caption : str
    values : iterable of str
        One or more words each, such as ``red`` or ``teddy bear``.
    """
    words = words_of(caption)
    ordered = sorted(
        ((words_of(value), value) for value in values), key=lambda pair: (-len(pair[0]), pair)
    )
    for start in range(len(words)):
        for name, value in ordered:
            if name and words[start : start + len(name)] == name:
                return value
    return ""
