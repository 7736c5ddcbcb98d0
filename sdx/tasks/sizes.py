"""How many items and labelled examples the benchmarks have, and how long they are in English: for estimates."""

from sdx.languages import Language

BENCHMARKS = {
    "arc_easy": (2376, 43.0),
    "mmlu_human": (285, 85.0),
    "mmlu_subject": (285, 63.0),
    "belebele": (900, 190.0),
    "belebele_mc": (900, 190.0),
    "flores": (1012, 45.0),
    "xlsum": (11_535, 600.0),  # in English, see XLSUM
    "mkqa": (6620, 25.0),  # of its 10,000 those with an entity, a date, a number or a short phrase
    "arc_easy_full": (2376, 43.0),
    "xnli": (5010, 45.0),
    "americas_nli": (750, 45.0),
    "kardes_nlu": (2000, 45.0),
    "nusax": (400, 30.0),  # tokens guessed
    "xquad": (1190, 190.0),
    "mgsm": (250, 75.0),
    "gsm8k": (614, 75.0),
}
"""Items of a language, and tokens of one in English."""
XLSUM = {
    "amharic": 719,
    "arabic": 4689,
    "azerbaijani": 809,
    "bengali": 1012,
    "burmese": 570,
    "chinese_simplified": 4670,
    "chinese_traditional": 4670,
    "english": 11_535,
    "french": 1086,
    "gujarati": 1139,
    "hausa": 802,
    "hindi": 8847,
    "igbo": 522,
    "indonesian": 4780,
    "japanese": 889,
    "kirundi": 718,
    "korean": 550,
    "kyrgyz": 500,
    "marathi": 1362,
    "nepali": 725,
    "oromo": 757,
    "pashto": 1794,
    "persian": 5906,
    "portuguese": 7175,
    "punjabi": 1026,
    "russian": 7780,
    "scottish_gaelic": 500,
    "serbian_cyrillic": 909,
    "sinhala": 500,
    "somali": 745,
    "spanish": 4763,
    "swahili": 987,
    "tamil": 2027,
    "telugu": 1302,
    "thai": 826,
    "tigrinya": 681,
    "turkish": 3397,
    "ukrainian": 5399,
    "urdu": 8458,
    "uzbek": 590,
    "vietnamese": 4013,
    "welsh": 1216,
    "yoruba": 793,
}
"""Articles of XL-Sum's test split, by its names of languages (its authors' table, version 2.0)."""
UNKNOWN_EXAMPLES = 50_000
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
    "belebele_mc": (67_500, {"passage": 250.0, "question": 14.0, "answer": 8.0}),  # RACE is most of it
}
"""Rows of labelled training data, and tokens of each field in English. The tokens of xnli, xquad, nusax and belebele_mc
are guessed."""


def items_of(task: str, language: Language) -> tuple[int, float]:
    """Items of a benchmark in a language, and the tokens of one in English."""
    count, tokens = BENCHMARKS.get(task, (1000, 100.0))
    return (XLSUM.get(language.xlsum, count), tokens) if task == "xlsum" else (count, tokens)
