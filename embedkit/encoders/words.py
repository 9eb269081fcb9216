"""Words as tokens: the vocabulary of captions, as the ``tokenizer.json`` of a text tower that learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from embedkit.encoders.text_recipe import TextRecipe
from embedkit.errors import ConfigError

__all__ = ["WORD_RECIPE", "build_words"]

WORD_RECIPE = TextRecipe(max_tokens=128, inputs=("input_ids",))
"""How texts become the tokens of words: cut at 126 words, and padded by 0, which is no word."""

_MARKS = ("<pad>", "<unknown>", "<start>", "<end>")  # none of which can be read out of a text
_WORD = r"[^\W_]+"


def build_words(texts: Sequence[str], *, least: int) -> str:
    """A ``tokenizer.json`` that knows the words which `texts` say `least` times or more, the most frequent first.

    A word is a run of letters and digits in lower case (after Unicode's NFKC), a Chinese character by itself; signs
    are left out. All other words are one unknown token. A text becomes start, its words and end, and so is never empty.
    Raises ConfigError where no word is frequent enough.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    plain = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.BertNormalizer(handle_chinese_chars=True, strip_accents=False, lowercase=True)]
    )
    split = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    counts = Counter(word for text in texts for word, _ in split.pre_tokenize_str(plain.normalize_str(text)))
    known = sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
    if not known:
        raise ConfigError(
            f"No word of the {len(texts):,} training captions occurs {least} times; set texts to gru(least=1), or give "
            "more captions"
        )
    numbers = {word: number for number, word in enumerate([*_MARKS, *known])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=_MARKS[1]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = plain, split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(mark, numbers[mark]) for mark in _MARKS[2:]]
    )
    made: str = tokenizer.to_str()
    return made
