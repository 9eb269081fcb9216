"""Hugging Face folders with the real classes, real files and tiny random weights, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
import torch
import transformers

WORDS = ("a", "red", "green", "blue", "canvas", "shoe", "bag", "of", "text", "words", "the", "and")
PICTURE = {"image_size": 32, "patch_size": 8}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def save(folder: Path, config, *parts, kind=None) -> str:
    """Weights of standard deviation 1/sqrt(32), so that inputs make a difference; the folder's path."""
    torch.manual_seed(sum(folder.name.encode()))
    model = (
        (kind or transformers.AutoModel)._from_config(config) if kind else transformers.AutoModel.from_config(config)
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 32**-0.5)
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


def clip_tokenizer():
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("s", "h"), ("o", "e</w>"), ("sh", "oe</w>"), ("r", "e"), ("re", "d</w>")]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def bert_tokenizer(**options):
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *("##" + letter for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=64, **options)


def siglip_tokenizer():
    names = ["<pad>", "</s>", "<unk>", *WORDS]
    model = tokenizers.models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>")
    plain = tokenizers.Tokenizer(model)
    plain.normalizer = tokenizers.normalizers.Lowercase()
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def clip(folder: Path) -> str:
    tokenizer = clip_tokenizer()
    text = {
        **SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 77, "projection_dim": 24,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {**SMALL, **PICTURE, "projection_dim": 24}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return save(folder, config, transformers.CLIPImageProcessor(**sizes), tokenizer)


def siglip(folder: Path) -> str:
    tokenizer = siglip_tokenizer()
    text = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "pad_token_id": 0}
    text |= {"bos_token_id": 1, "eos_token_id": 1}
    config = transformers.SiglipConfig(text_config=text, vision_config={**SMALL, **PICTURE})
    return save(folder, config, transformers.SiglipImageProcessor(size={"height": 32, "width": 32}), tokenizer)


def vit(folder: Path, **processor) -> str:
    sizes = {"size": {"height": 32, "width": 32}, **processor}
    return save(folder, transformers.ViTConfig(**SMALL, **PICTURE), transformers.ViTImageProcessor(**sizes))


def vit_classifier(folder: Path) -> str:
    """As published classifiers are: the weights of the pooler are missing."""
    config = transformers.ViTConfig(**SMALL, **PICTURE)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    return save(folder, config, processor, kind=transformers.ViTForImageClassification)


def dinov2(folder: Path) -> str:
    config = transformers.Dinov2Config(**SMALL, image_size=28, patch_size=7)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 28, "width": 28},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return save(folder, config, processor)


def convnext(folder: Path) -> str:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=64)
    return save(folder, config, transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.9))


def resnet(folder: Path) -> str:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return save(folder, config, transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875))


def bert(folder: Path, *, pooling: dict[str, bool] | None = None, max_tokens: int = 16, lower: bool = False) -> str:
    """With the files of sentence-transformers where a pooling is given."""
    tokenizer = bert_tokenizer(do_lower_case=not lower)
    config = transformers.BertConfig(**SMALL, vocab_size=len(tokenizer), max_position_embeddings=64)
    save(folder, config, tokenizer)
    if pooling is not None:
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
        modules = [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(kinds.items())
        ]
        write_json(folder / "modules.json", modules)
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": lower})
        write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **pooling})
    return str(folder)


def roberta(folder: Path) -> str:
    """Counts its positions from the padding token's number on, and sets no limit to its tokenizer."""
    tokenizer = siglip_tokenizer()
    config = transformers.RobertaConfig(
        **SMALL, vocab_size=len(tokenizer), max_position_embeddings=24, pad_token_id=0, bos_token_id=1, eos_token_id=1
    )
    return save(folder, config, tokenizer)


def esm(folder: Path) -> str:
    """Its tokenizer is written in Python and has no tokenizer.json."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["<cls>", "<pad>", "<eos>", "<unk>", "<mask>", *WORDS]))
    tokenizer = transformers.EsmTokenizer(str(folder / "vocab.txt"), model_max_length=32)
    config = transformers.EsmConfig(
        **SMALL, vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=1, mask_token_id=4
    )
    return save(folder, config, tokenizer)


def write_json(path: Path, values) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))
