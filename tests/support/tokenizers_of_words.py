"""Tokenizers whose words bring the space before them, as SentencePiece's do, made on the spot."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "the cat sat on the mat, and the dog sat on the cat.\n" * 3, "zwölf Boxkämpfer jagen the cat 世界 🙂", "no  two  spaces",
    "世", "x",
]  # fmt: skip


def metaspace() -> Tokenizer:
    """Unigram pieces, "▁" for a space."""
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    marks = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=marks, unk_token="<unk>", show_progress=False)
    inner.train_from_iterator(TEXTS, trainer)
    return inner


def byte_fallback() -> Tokenizer:
    """Merged letters, and single bytes of what has no letter here."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"theacsondmg.,x"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "c"), ("▁c", "a"), ("▁ca", "t"), ("a", "t")]
    pieces += ["".join(pair) for pair in merges]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    return inner


MAKERS = {"metaspace": metaspace, "byte_fallback": byte_fallback}
