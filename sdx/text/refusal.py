"""Whether a model declines instead of answering, in English or French. Ours.

Only the opening of a text is read, 600 characters (a refusal and what may precede it are shorter), and only in the
model's own voice: a persona with a negation ("As an AI language model, I don't ..."), or models' own words for
declining ("I cannot assist with", "I don't have access to the internet"), with or without an apology before them. A
letter, a story or a quotation in which somebody is sorry or cannot come does not begin like that. What follows does not
matter: advice after a refusal is still no answer.
"""

from functools import cache

import regex

SHORT_FORMS = {"cannot": "can't", "can not": "can't", "do not": "don't", "will not": "won't", "i am": "i'm"}


def refuses(text: str) -> bool:
    """Whether a text opens with a refusal. In other languages than English and French it never does."""
    opening = " ".join(text[:600].lower().replace("’", "'").split()).lstrip("*#>- ")
    for full, short in SHORT_FORMS.items():
        opening = opening.replace(full, short)
    return bool(_english().match(opening) or _french().match(opening))


REST = "[^.!?]{0,120}?"
"""Of the same sentence."""
WORDS = r"(?:[\w'-]+ ){0,4}?"


def _any(*choices: str) -> str:
    return f"(?:{'|'.join(choices)})"


@cache
def _english() -> regex.Pattern[str]:
    apology = _any("my apologies", "thank you", "i apologi[sz]e", "(?:i'm )?(?:afraid|(?:(?:very|so|truly) )?sorry)")
    preface = _any("no", "hello", "hi", "unfortunately", rf"{apology}\b{REST}")

    model = _any("ai", "artificial intelligence", "language model", "llm", "chatbot", "(?:virtual|digital) assistant")
    model += "(?: language)?(?: model| assistant| system| chatbot)?"
    # What follows tells an AI from an AI researcher.
    model += rf"(?=,| {_any('designed', 'trained', 'created', 'developed', 'built', 'that', 'and', 'so', 'i')}\b)"
    denial = _any(" can't", " don't", " won't", " have no", "'m not", "'m unable")
    persona = rf"(?:as|being|i'm (?:just|only|merely)) an? {WORDS}{model}{REST}\bi{denial}\b"

    participles = _any("able", "equipped", "programmed", "designed", "allowed")
    ability = "(?:ability|capability|capacity)"
    unable = _any(" can't", " won't", f" don't have the {ability} to", "'m unable to", f"'m not {participles} to")
    give = _any(*"provide give offer share generate create write produce discuss promote perform".split())
    what = "information advice instructions assistance guidance content details opinions? answers? responses? requests?"
    what += " recommendations? diagnos[ei]s data images? topics? actions?"
    what = _any(*what.split())
    outside = _any("the (?:internet|web|file|image|link|video|document)", "external", "real-time", "personal", "your")
    deed = _any(
        "assist",
        "comply",
        "help (?:you|with)",
        "(?:fulfill?|process|complete|answer|respond to|continue with) (?:this|that|your|such)",
        f"{give} {WORDS}{what}",
        f"(?:access|browse|open|view|see) (?:any )?{outside}",
    )
    lacking = _any(
        f"(?:any )?(?:direct )?access to (?:any )?{outside}",
        "(?:enough|sufficient) (?:information|context)",
        "(?:personal |human )?(?:experiences|opinions|beliefs|feelings|emotions|preferences)",
    )
    role = "(?:as an? [^,.!?]{1,80}, )?"
    declining = rf"{role}i(?:{unable} {deed}| don't have {lacking})\b"
    return regex.compile(rf"(?:{preface}[,.!:;]? (?:but |however,? )?){{0,3}}(?:{persona}|{declining})")


@cache
def _french() -> regex.Pattern[str]:
    apology = _any("merci", "toutes mes excuses", "je m'excuse", "(?:je suis )?(?:vraiment )?(?:désolée?|navrée?)")
    preface = _any("non", "bonjour", "malheureusement", rf"{apology}\b{REST}")

    model = _any("ia", "intelligence artificielle", "modèle (?:de lang(?:age|ue)|linguistique|d'ia)", "chatbot")
    persona = rf"(?:en tant qu(?:e |')|je ne suis qu')(?:une? )?{WORDS}{model}\b{REST}\bje n(?:e |')"

    unable = _any("(?:peux|puis)(?: malheureusement)?(?: pas)?", "suis pas (?:en mesure|capable|autorisée?)(?: de)?")
    give = _any(*"fournir donner générer créer écrire produire proposer".split())
    what = _any(*"informations? conseils? instructions? aide avis diagnostic réponses? contenus? images?".split())
    deed = _any(
        "(?:vous |t'|d')?(?:aider|assister)",
        "(?:répondre|accéder|donner suite) à (?:cette|ce|votre|ta|vos|ces|internet)",
        rf"(?:vous |te )?{give} {WORDS}(?:d')?{what}",
    )
    lacking = _any(
        "accès (?:à (?:internet|votre|vos|des)|aux données)",
        "la capacité de",
        "(?:suffisamment|assez) d'informations",
        "(?:d'|de )(?:opinions?|émotions|sentiments|préférences|avis)",
    )
    declining = rf"je (?:ne {unable} {deed}|n'ai pas {lacking})\b"
    return regex.compile(rf"(?:{preface} ?[,.!:;]? (?:mais )?){{0,3}}(?:{persona}|{declining})")
