"""Renders a model's chat template, which is a foreign program, in a process with limits on time and memory.

    python -m sdx.models.rendering < request    prints the texts, or an error

A template that passes is trusted afterwards: a model that a user gives can waste time in other ways, too.
"""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sdx import InputError

LIMIT_S = 5
"""CPU time for all texts, which take milliseconds."""
MEMORY_BYTES = 16 << 30
"""Address space, some of which a process with many threads reserves without use."""


def rendered(
    template: str, variables: Mapping[str, Any], conversations: Sequence[tuple[list[dict[str, str]], bool]]
) -> list[str]:
    """The text of each conversation, given as messages and whether to add the generation prompt.

    Raises:
        InputError: with a predicate for the template.
    """
    request = {"template": template, "variables": variables, "conversations": conversations, "limit_s": LIMIT_S}
    answer = _answer_of_process(json.dumps(request, default=str))
    if "error" in answer:
        raise InputError(answer["error"])
    texts: list[str] = answer["texts"]
    return texts


@lru_cache(maxsize=8)
def _answer_of_process(request: str) -> dict[str, Any]:
    paths = os.pathsep.join(path or os.curdir for path in sys.path)
    done = subprocess.run(
        [sys.executable, "-m", "sdx.models.rendering"],
        input=request,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode == -signal.SIGXCPU:
        raise InputError(f"is not done after {LIMIT_S} s: it goes round in a loop")
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise InputError(f"ends the process that renders it (exit code {done.returncode})") from None
    return answer


def _bounded(request: str) -> str:
    """`_answer` as JSON, in a process that is killed if it takes too long."""
    from transformers.utils import chat_template_utils  # noqa: F401 - the import takes longer than rendering

    used = resource.getrusage(resource.RUSAGE_SELF)
    limit_s = math.ceil(used.ru_utime + used.ru_stime) + json.loads(request)["limit_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return json.dumps(_answer(request))


def _answer(request: str) -> dict[str, Any]:
    from transformers.utils.chat_template_utils import render_jinja_template

    given, texts = json.loads(request), []
    try:
        for messages, generates in given["conversations"]:
            [text], _ = render_jinja_template(
                [messages], chat_template=given["template"], add_generation_prompt=generates, **given["variables"]
            )
            if len(text) > 1_000_000:
                return {"error": f"writes {len(text):,} letters for a message of a word"}
            texts.append(text)
    except MemoryError:
        return {"error": "needs more memory than there is"}
    except Exception as error:  # a template can raise anything
        number = getattr(error, "lineno", None)
        line = f" in line {number}" if number else ""
        return {"error": f"fails{line} ({type(error).__name__}: {' '.join(str(error).split())[:200]})"}
    return {"texts": texts}


if __name__ == "__main__":
    print(_bounded(sys.stdin.read()))
