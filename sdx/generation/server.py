"""Completions by an endpoint with OpenAI's API that serves the backbone: vLLM, SGLang, llama.cpp, a provider.

A batch is a few times `concurrency` requests, so that its rows are soon on disk. The openai client repeats a request
after a time-out, a connection that breaks and the statuses 408, 409, 429 and 5xx, with exponential back-off and jitter;
it waits as long as `Retry-After` says, up to two minutes. An answer that is none, such as HTML or JSON without
choices, is asked for again here. Anything else, such as a wrong key or model, ends the run at once.

The endpoint may run the model in another precision and with other kernels, so its greedy answers may differ from those
of `generator=hf`; its model, `api` and the sampling are part of the step's key, `url` is not.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, urlsplit

from omegaconf import MISSING

from sdx import InputError
from sdx.config import GeneratorConfig
from sdx.generation.base import Completion, Generator, Stop
from sdx.generation.hf import HFGenerator
from sdx.generation.sampling import GREEDY, Sampling, seed_of
from sdx.models.template import OPTIONS
from sdx.options import fields

BATCHES = 4
"""Rows of a batch for each request at a time: few to lose in a kill, enough to keep the endpoint busy. Ours."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
"""Between attempts at an answer that is none, doubled each time; as the openai client waits."""
WAITING = "the rows answered so far are kept, and the same command goes on from there"
FIXES = {
    **dict.fromkeys((401, 403), "check the key in the variable that generator.key_env names"),
    404: "check generator.url, which often ends in /v1, and generator.model, as the endpoint calls the backbone",
    **dict.fromkeys(
        (400, 422), "give what it asks for; generator.extensions=false leaves out what OpenAI does not have"
    ),
}
"""What to do about a status that no repetition changes."""


class API(str, Enum):
    """What the endpoint is asked."""

    completions = "completions"
    """To continue a text, which has the backbone's template."""
    chat = "chat"
    """To answer a message, in the endpoint's own template."""


@dataclass
class ServerConfig(GeneratorConfig):
    url: str = fields.line(MISSING)
    """Base URL, such as http://localhost:8000/v1. Not part of cache keys."""
    model: str = fields.line(MISSING)
    """What the endpoint calls the backbone."""
    api: API = API.completions
    """`chat` is for endpoints that only chat."""
    key_env: str | None = None
    """Name of the environment variable with the endpoint's key, such as OPENAI_API_KEY; none: no key."""
    concurrency: int = fields.number(32, at_least=1, at_most=1000)
    """Requests at a time, of each process. Ours."""
    timeout_s: float = fields.number(600.0, above=0, at_most=10**6)
    """Longest wait for an answer."""
    retries: int = fields.number(10, at_least=0, at_most=1000)
    """Further attempts at an answer. Ours; ten take a minute if the endpoint refuses at once."""
    extensions: bool = True
    """Send fields that OpenAI's API does not have, but those of vLLM, SGLang and others: without `repetition_penalty`
    some endpoints apply the model's own."""


class Server(Generator):
    """The options are those of `ServerConfig`.

    Raises:
        InputError: they cannot work.
    """

    is_remote = True

    def __init__(
        self,
        url: str,
        model: str,
        api: API,
        key_env: str | None,
        concurrency: int,
        timeout_s: float,
        retries: int,
        extensions: bool,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.url, self.model, self.api, self.extensions = url, model, api, extensions
        self.concurrency, self.timeout_s, self.retries = concurrency, timeout_s, retries
        if not find_spec("openai"):
            raise InputError("generator=server needs the package openai; pip install 'sdx[server]'")
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InputError(f"generator.url={url} is no address; give the base URL, as http://localhost:8000/v1")
        self._key = os.environ.get(key_env, "") if key_env else "none"
        if not self._key:
            raise InputError(f"generator.key_env={key_env}: the environment has no such variable; export it")

    @property
    def engine(self) -> str:
        return f"server {self.model}, {self.api.value}"

    @property
    def local(self) -> Generator:
        return HFGenerator(self.batch_size, self.precision)

    def serving(self, model: str) -> Generator:
        other = copy(self)
        other.model = model
        return other

    @property
    def most_rows(self) -> int:
        return BATCHES * self.concurrency

    def prompt(self, instruction: str) -> str:
        return instruction if self.api is API.chat else super().prompt(instruction)

    def _complete(
        self,
        texts: list[str],
        special: bool,
        stop: Stop,
        limits: Sequence[int],
        probes: Sequence[str],
        sampling: Sampling = GREEDY,
        ids: Sequence[str] = (),
    ) -> list[Completion]:
        """Raises InputError if the endpoint does not answer one of the prompts."""
        if special and self.api is API.chat:
            raise InputError(
                "generator.api=chat cannot continue a text, which translator=self asks of a model without a chat "
                "template; give generator.api=completions or another translator"
            )
        tokenizer = self._files().tokenizer
        lengths = [len(tokens) for tokens in tokenizer(texts, add_special_tokens=special).input_ids]
        bos = tokenizer.bos_token
        if bos and not special and tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
            texts = [text.removeprefix(bos) for text in texts]  # the endpoint's tokenizer adds it
        ends = list(dict.fromkeys(filter(None, (*stop.cuts, stop.string)))) or None
        fixed = {"model": self.model, "stop": ends, "temperature": sampling.temperature, "top_p": sampling.top_p}
        extra: dict[str, Any] = {"top_k": sampling.top_k or -1, "repetition_penalty": sampling.repetition_penalty}
        extra |= {"stop_token_ids": sorted(stop.ids)}
        extra |= {"chat_template_kwargs": OPTIONS} if self.api is API.chat else {}

        def request(index: int) -> dict[str, Any]:
            own: dict[str, Any] = {"max_tokens": limits[index], **fixed}
            own |= {"extra_body": extra} if self.extensions else {}
            if ids:
                own |= {"seed": seed_of(ids[index]), "extra_headers": {"X-Client-Request-Id": quote(ids[index])}}
            if self.api is API.chat:
                return {"messages": [{"role": "user", "content": texts[index]}], **own}
            return {"prompt": texts[index], **own}

        async def complete() -> list[Completion]:
            from openai import AsyncOpenAI

            gate, options = (
                asyncio.Semaphore(self.concurrency),
                {"timeout": self.timeout_s, "max_retries": self.retries},
            )
            async with AsyncOpenAI(base_url=self.url, api_key=self._key, **options) as client:  # type: ignore[arg-type]
                ask = client.chat.completions.create if self.api is API.chat else client.completions.create

                async def one(index: int) -> Completion:
                    if lengths[index] + limits[index] > self.context:
                        return Completion("", 0, False)
                    async with gate:
                        what = f"row {ids[index]}" if ids else repr(_shortened(texts[index]))
                        return await self._answer(partial(ask, **request(index)), stop, what)

                return await asyncio.gather(*map(one, range(len(texts))))

        return asyncio.run(complete())  # if one fails, the others are cancelled

    async def _answer(self, ask: Callable[[], Awaitable[Any]], stop: Stop, what: str) -> Completion:
        """Raises InputError, which names the prompt by `what`."""
        from openai import APIConnectionError, APIStatusError

        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.75, 1))
            try:
                return self._read(await ask(), stop)
            except APIStatusError as error:
                said = error.message.removeprefix(f"Error code: {error.status_code} - ")
                reason, fix = f"{error.status_code} ({_shortened(said)})", FIXES.get(error.status_code, WAITING)
                break
            except APIConnectionError as error:  # time-outs among them
                reason, fix = f"no answer in {self.retries + 1} attempts ({_shortened(str(error))})", WAITING
                break
            except (AttributeError, IndexError, TypeError, ValueError) as error:  # the client checks no types
                reason, fix = f"no completion in {self.retries + 1} attempts ({_shortened(str(error))})", WAITING
        raise InputError(f"generator.url={self.url} gave {reason} for {what}; {fix}")

    def _read(self, response: Any, stop: Stop) -> Completion:
        """Raises one of many errors if the response is no completion."""
        choice = response.choices[0]
        text = choice.message.content if self.api is API.chat else choice.text
        if not isinstance(text, str) or choice.finish_reason not in ("stop", "length"):
            raise ValueError(f"text {text!r}, finish_reason {choice.finish_reason!r}")
        finished = choice.finish_reason == "stop"
        count = response.usage.completion_tokens if response.usage else self.count_tokens([text])[0] + finished
        return stop.completion(text, max(count, 1), finished)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}..."


SCHEMAS = {"server": ServerConfig}
