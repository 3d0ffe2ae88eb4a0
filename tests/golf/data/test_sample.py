from golf.data.sample import SENTENCE_BYTES, SentenceSample, split_sentences


def test_long_lines_are_cut_at_spaces_to_what_the_trainer_takes() -> None:
    text = "short\n" + "wörter 🙂 " * 2000 + "\n" + "x" * 10_000 + "\0y"
    pieces = list(split_sentences(text))
    assert all(len(piece.encode()) <= SENTENCE_BYTES for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.translate({0: "", 10: "", 32: ""})
    assert pieces[1].endswith(("wörter", "🙂"))


def test_a_small_text_is_sampled_whole() -> None:
    sample = SentenceSample()
    for document in ("one\ntwo", "three"):
        sample.add(document)
    assert sample.sentences == ["one", "two", "three"]


def test_a_large_text_is_sampled_evenly_within_the_budget() -> None:
    sample = SentenceSample(budget_bytes=5000)
    for index in range(0, 10_000, 10):
        sample.add("\n".join(f"{number:08d}" for number in range(index, index + 10)))
    numbers = [int(sentence) for sentence in sample.sentences]
    assert numbers == list(range(0, 10_000, 16))
