"""Backend for servers with OpenAI's chat API: llama-server, vLLM, Ollama, hosted models."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rapport.agents.llm.address import KEY_VARIABLE, parse_address, proxy_variable
from rapport.agents.llm.answers import decoded_json, read_completion
from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import (
    Budget,
    Completion,
    CompletionOptions,
    SampleRequest,
    Sampling,
    one_line,
    printable,
)
from rapport.agents.llm.base.secrets import scrub
from rapport.agents.llm.circuit_breaker import CircuitBreaker
from rapport.agents.llm.dialect import Dialect, refused_fields, words_of
from rapport.agents.llm.http_client import LARGEST, loop_of, new_client, run

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

logger = logging.getLogger(__name__)

TIMEOUT = 120.0
"""Seconds that one answer may take where no limit is given."""
PARALLEL = 8
"""Requests at a time where no number is given."""

_PASSING = (408, 409, 425, 429)
"""Statuses from 400 to 499 that may pass by themselves."""
_OF_PROMPT = (400, 403, 413, 422)
"""Those that may be about one prompt, its length or content, and not about every request."""
_PATIENCE = 3
"""Prompts refused one after the other, and none answered before, after which no more are sent."""
_REMEDIES = {
    401: f"set the environment variable {KEY_VARIABLE} to a key that the server accepts",
    402: "see the server's account",
    403: f"set the environment variable {KEY_VARIABLE} to a key that may use this model",
    404: "check the path of the address and the model after #",
    405: "check the path of the address: OpenAI's API has it end in /v1",
}


class OpenAILLM(Backend):
    """A model on an OpenAI-compatible server. The prompts of a batch are sent in parallel.

    The environment variable ``OPENAI_API_KEY`` holds the key; local servers need none. A user and password, or
    parameters such as ``?api_key=``, in the address are sent and appear in no identity, text or error.

    A schema is sent as ``response_format``, in the first of two forms that the server accepts. If it accepts neither,
    requests are sent without one, and answers must be checked, as `complete_json` does. Other fields that a server
    refuses by name are left out, or sent under another name (``max_completion_tokens``), and that is remembered.

    A refusal that will not pass by itself (most statuses from 400 to 499) is not repeated. If it is not about the
    prompt, or the first three prompts are refused, no more are sent, and `refusal` holds the server's words.

    Each sample of a prompt is a request of its own with another seed, because many servers ignore ``n``. A server
    without log-probabilities gives completions with an error if they are requested.

    The `openai` client repeats requests that failed otherwise, with growing pauses, all within one time limit. After
    several consecutive failures a circuit breaker stops requests for a while, so that a run ends even if its server is
    down. After a batch with an answer that came too late, half as many requests run at a time.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        timeout: float = TIMEOUT,
        retries: int = 2,
        parallel: int = PARALLEL,
        pause: float = 5.0,
    ) -> None:
        """Create the client; nothing is sent.

        Args:
            base_url: address with the version, such as ``http://localhost:8080/v1``.
            model: name of the model on the server.
            sampling: sampling settings.
            budget: limits on what the model may cost.
            timeout: seconds that one answer may take, repeated requests included.
            retries: times a failed request is repeated.
            parallel: concurrent requests; as many consecutive failures open the circuit breaker.
            pause: seconds for which the circuit breaker opens the first time.

        Raises:
            ImportError: the `openai` package is not installed.
            ValueError: the address, the key or a proxy cannot be used, or a limit is out of range.
        """
        address = parse_address(base_url, "base_url")
        if not timeout > 0 or retries < 0 or parallel < 1:
            raise ValueError(
                "timeout must be above 0, retries at least 0 and parallel at least 1; "
                f"got {timeout}, {retries} and {parallel}"
            )
        super().__init__(f"openai:{address.base}#{model}", sampling, budget)
        self.model = model
        self._address, self._secrets = address, address.secrets()
        self._timeout, self._retries, self._parallel = timeout, retries, parallel
        self._circuit = CircuitBreaker(tolerance=parallel, pause=pause)
        self._dialect = Dialect()
        self._form_is_known = self._answered = self._asked = self._late = False
        self._refused = 0
        self._useless: set[str] = set()
        self._owner, self._client = 0, new_client(address, timeout, retries)

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        timeout: float = TIMEOUT,
        parallel: int = PARALLEL,
    ) -> OpenAILLM:
        """Connect to a server and, without ``#model``, use the first model that it lists.

        Args:
            url: ``http://host:port/v1#model``; ``/v1`` is added if there is no path.
            sampling: sampling settings.
            budget: limits on what the model may cost.
            timeout: seconds that one answer may take, repeated requests included.
            parallel: concurrent requests.

        Raises:
            ConnectionError: the server does not answer, or refuses the key.
            ValueError: the address, the key or a proxy cannot be used; or the address names no model and the server
                lists none.
        """
        address = parse_address(url)
        whole = url.strip().partition("#")[0]
        if urlsplit(address.base).path in ("", "/"):
            place, mark, query = whole.partition("?")
            whole = f"{place.rstrip('/')}/v1{mark}{query}"
            address = parse_address(whole)
        asker = cls(whole, "", timeout=min(timeout, 10.0), retries=1)
        listed = asker._listed_models()
        model = parse_address(url).model
        if not model and not listed:
            raise ValueError(f"the server at {address.base} lists no models: name one, as in {address.base}#model")
        return cls(whole, model or listed[0], sampling=sampling, budget=budget, timeout=timeout, parallel=parallel)

    def _complete(
        self, requests: Sequence[SampleRequest], options: CompletionOptions, until: float | None
    ) -> list[Completion]:
        completions = run(self._batch(requests, options, until))
        if self._late and self._parallel > 1:
            self._parallel //= 2
            logger.warning("%s answers too late: %d requests at a time from now on", self.identity, self._parallel)
        self._late = False
        return completions

    async def _batch(
        self, requests: Sequence[SampleRequest], options: CompletionOptions, until: float | None
    ) -> list[Completion]:
        first: list[Completion] = []
        while len(first) < len(requests) and self._is_unsure(options):
            first.append(await self._one(requests[len(first)], options, until))
            if not self._refused:
                break
        places = asyncio.Semaphore(self._parallel)

        async def one(request: SampleRequest) -> Completion:
            async with places:
                return await self._one(request, options, until)

        return first + list(await asyncio.gather(*map(one, requests[len(first) :])))

    def _is_unsure(self, options: CompletionOptions) -> bool:
        """Whether one request should test that the server is up and takes what is sent, before all are sent."""
        if self.refusal is not None:
            return False
        untested = not self._asked or bool(self._refused and not self._answered)
        return untested or self._circuit.is_half_open or (options.schema is not None and not self._form_is_known)

    async def _one(self, request: SampleRequest, options: CompletionOptions, until: float | None) -> Completion:
        import openai

        limit = self._timeout if until is None else min(self._timeout, until - time.monotonic())
        if reason := self._why_not(options, limit):
            return Completion("", error=f"not sent: {reason}", sent=False)
        self._asked = True
        try:
            async with asyncio.timeout(limit):
                completion = await self._request(request, options)
        except TimeoutError:
            self._late = True
            return self._failed(f"no complete answer within {limit:g} s")
        except openai.APIStatusError as error:
            if _is_for_good(error):
                return self._was_refused(error)
            return self._failed(self._words(error))
        except Exception as error:  # whatever a server sends: a run goes on without the answer
            return self._failed(self._words(error))
        self._circuit.succeeded()
        self._answered, self._refused = True, 0
        return replace(completion, text=scrub(completion.text, self._secrets))  # it may repeat what it was told

    def _why_not(self, options: CompletionOptions, seconds: float) -> str | None:
        """Why a prompt is not sent now; None where it is."""
        if self.refusal is not None:
            return self.refusal
        if seconds <= 0:
            return "the budget's seconds are spent"
        if self._circuit.is_open:
            return "the server has not answered for some time"
        if options.logprobs and "logprobs" in self._dialect.left_out:
            return "logprobs=True: the server refuses to give log-probabilities; use another server or a GGUF file"
        return None

    async def _request(self, request: SampleRequest, options: CompletionOptions) -> Completion:
        """Send one request, again without the fields that the server refuses by name."""
        import openai

        dialect = self._dialect
        tried: list[str] = []
        while True:
            fields = dialect.fields(self.model, request, options, self.sampling)
            try:
                completion = await self._send(fields, request, options)
            except (openai.BadRequestError, openai.UnprocessableEntityError, openai.InternalServerError) as error:
                change = self._change(error, dialect, fields, tried)
                if change is None:
                    self._useless.update(tried)
                    raise
                dialect = change
            else:
                if tried:
                    self._dialect = dialect
                    logger.warning("%s refuses %s: sent without or otherwise", self.identity, ", ".join(tried))
                self._form_is_known |= options.schema is not None
                return completion

    def _change(
        self, error: APIStatusError, dialect: Dialect, fields: Mapping[str, Any], tried: list[str]
    ) -> Dialect | None:
        """The dialect to try after a refusal, or None; notes the field in `tried`."""
        if error.status_code >= 500:
            # Some servers fail on an unknown response format (500) where others refuse it (400, 422).
            named = ["response_format"] if "response_format" in fields and not self._form_is_known else []
        else:
            named = list(refused_fields(_body(error), fields))
        for field in named:
            if field in self._useless or (field in tried and field != "response_format"):
                continue
            if (change := dialect.without(field)) is not None:
                tried += [] if field in tried else [field]
                return change
        return None

    async def _send(self, fields: dict[str, Any], request: SampleRequest, options: CompletionOptions) -> Completion:
        raw = await self._connected().chat.completions.with_raw_response.create(**fields)
        self.meter.retries += raw.retries_taken
        return read_completion(raw.http_response.content, raw.headers, request, options)

    def _connected(self) -> AsyncOpenAI:
        """The client of this process; its connections are closed with this object."""
        if self._owner != os.getpid():
            if self._owner:
                self._client = new_client(self._address, self._timeout, self._retries)
            self._owner = os.getpid()
            weakref.finalize(self, _close, self._client, self._owner).atexit = False
        return self._client

    def _was_refused(self, error: APIStatusError) -> Completion:
        """Note a refusal that will not pass by itself."""
        status = error.status_code
        reason = self._words(error)
        self._refused += 1
        of_prompt = status in _OF_PROMPT and (status != 403 or self._answered)
        if not of_prompt or (self._refused >= _PATIENCE and not self._answered):
            remedy = f": {_REMEDIES[status]}" if status in _REMEDIES else ""
            self.refusal = reason + remedy
            logger.warning("%s: %s; the run continues without the model", self.identity, self.refusal)
        return Completion("", error=reason)

    def _failed(self, reason: str) -> Completion:
        if (pause := self._circuit.failed()) is not None:
            logger.warning("%s does not answer (%s): no requests for %g s", self.identity, reason, pause)
        return Completion("", error=reason)

    def _words(self, error: Exception) -> str:
        """What went wrong, in one line without secrets; names the proxy if there is one."""
        import openai

        via = proxy_variable(self._address.base)
        through = f" (asked through the proxy that {via} names)" if via else ""
        if isinstance(error, openai.APIStatusError):
            status, body = error.status_code, _body(error)
            verb = "fails" if status >= 500 or status in _PASSING else "refuses the request"
            if place := error.response.headers.get("location"):
                body = f"it redirects to {place}; give that address"
            return f"the server {verb} ({status}): {self._line(words_of(body)) or 'no reason given'}{through}"
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return f"no connection to the server ({type(cause).__name__}: {self._line(str(cause))}){through}"
        return (self._line(str(error)) or type(error).__name__) + through

    def _line(self, text: str) -> str:
        """A server's text as one line of at most 300 characters, without secrets."""
        line = one_line(scrub(text, self._secrets))
        return line if len(line) <= 300 else f"{line[:297]}..."

    def _listed_models(self) -> list[str]:
        """Names of the models on the server; none where it does not list them.

        Raises:
            ConnectionError: the server does not answer, or refuses the key.
        """
        import openai

        where = self._address.base

        async def asked() -> bytes:
            async with asyncio.timeout(self._timeout):
                raw = await self._connected().models.with_raw_response.list()
                content: bytes = raw.http_response.content
                return content

        try:
            body = decoded_json(run(asked()))
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ConnectionError(
                f"the server at {where} refuses the key ({self._words(error)}): set the environment variable "
                f"{KEY_VARIABLE}"
            ) from None
        except (openai.APIConnectionError, TimeoutError) as error:
            reason = f"nothing within {self._timeout:g} s" if isinstance(error, TimeoutError) else self._words(error)
            raise ConnectionError(
                f"no language model server answers at {where} ({reason}): start it, or check host, port and path"
            ) from None
        except (openai.OpenAIError, ValueError):
            return []  # some servers do not list their models
        data = body.get("data") if isinstance(body, dict) else None
        names = [item.get("id") for item in data if isinstance(item, dict)] if isinstance(data, list) else []
        return [printable(name) for name in names if isinstance(name, str) and name]


def _body(error: APIStatusError) -> Any:
    """The body of a refusal as the server sent it: JSON, or a text."""
    return decoded_json(error.response.content)


def _is_for_good(error: APIStatusError) -> bool:
    """Whether an error will not pass by itself."""
    if error.status_code == 429:  # too many requests, but also a quota that is used up
        return b"insufficient_quota" in error.response.content[:LARGEST]
    return 300 <= error.status_code < 500 and error.status_code not in _PASSING


def _close(client: AsyncOpenAI, process: int) -> None:
    """Close the connections of a client that nobody uses any more."""
    if process == os.getpid():
        asyncio.run_coroutine_threadsafe(client.close(), loop_of(process))
