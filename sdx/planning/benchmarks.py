"""How large benchmarks and their labelled training data are, before they are there."""

BENCHMARKS = {
    "arc_easy": (2376, 43.0),
    "mmlu_human": (285, 85.0),
    "mmlu_subject": (285, 63.0),
    "belebele": (900, 190.0),
    "belebele_mc": (900, 190.0),
    "flores": (1012, 45.0),
    "xlsum": (11_535, 600.0),
    "mkqa": (6_758, 25.0),
    "arc_easy_full": (2376, 43.0),
    "xnli": (5010, 45.0),
    "americas_nli": (750, 45.0),
    "kardes_nlu": (2500, 45.0),  # of each language about as many
    "nusax": (400, 30.0),  # tokens guessed
    "xquad": (1190, 190.0),
    "mgsm": (250, 75.0),
    "gsm8k": (614, 75.0),
}
"""Items, and tokens of one in English. XL-Sum's are those of its English test set, which is the largest."""
UNKNOWN_BENCHMARK = (1000, 100.0)
NLI = {"premise": 27.0, "hypothesis": 13.0, "answer": 1.0}
LABELLED: dict[str, tuple[int, dict[str, float]]] = {
    "arc_easy": (570, {"question": 26.0, "answer": 5.0}),
    "arc_easy_full": (2251, {"question": 26.0, "answer": 5.0}),
    "gsm8k": (705, {"question": 55.0, "answer": 58.0}),
    "mgsm": (7473, {"question": 55.0, "answer": 58.0}),
    "xnli": (392_702, NLI),
    "americas_nli": (392_702, NLI),
    "kardes_nlu": (392_702, NLI),
    "xquad": (87_599, {"context": 160.0, "question": 14.0, "answer": 4.0}),
    "mmlu_subject": (13_823, {"question": 63.0, "answer": 4.0}),
    "nusax": (500, {"text": 30.0, "answer": 1.0}),
    "belebele_mc": (67_000, {"passage": 250.0, "question": 14.0, "answer": 8.0}),  # RACE is most of it
}
"""Rows of labelled training data, and tokens of each field in English. Those of xnli, xquad, nusax and belebele_mc are
guessed, and the rows of belebele_mc."""
