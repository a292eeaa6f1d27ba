"""Backend for servers with OpenAI's chat API: llama-server, vLLM, Ollama, hosted models."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import (
    Budget,
    Completion,
    CompletionOptions,
    SampleRequest,
    Sampling,
    printable,
    sample_seed,
)
from rapport.agents.llm.circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

KEY_VARIABLE = "OPENAI_API_KEY"

_FORMS = ("json_schema", "json_object", "text")
"""Response formats in order of preference: OpenAI's, llama-cpp-python's (json_object with a schema), and none."""


class OpenAILLM(Backend):
    """A model on an OpenAI-compatible server. The prompts of a batch are sent in parallel.

    The environment variable ``OPENAI_API_KEY`` holds the key; local servers need none.

    A schema is sent as ``response_format``, in the first of two forms that the server accepts. If it accepts neither,
    requests are sent without one, and answers must be checked, as `complete_json` does.

    Each sample of a prompt is a request of its own with another seed, because many servers ignore ``n``. A server
    without log-probabilities gives completions with an error if they are requested.

    The `openai` client repeats failed requests with growing pauses. After several consecutive failures a circuit
    breaker stops requests for a while, so that a run ends even if its server is down.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        timeout: float = 60.0,
        retries: int = 2,
        parallel: int = 8,
        pause: float = 5.0,
    ) -> None:
        """Create the client; nothing is sent.

        Args:
            base_url: address with the version, such as ``http://localhost:8080/v1``.
            model: name of the model on the server.
            sampling: sampling settings.
            budget: limits on what the model may cost.
            timeout: seconds without data after which a request fails.
            retries: times a failed request is repeated.
            parallel: concurrent requests; as many consecutive failures open the circuit breaker.
            pause: seconds for which the circuit breaker opens the first time.

        Raises:
            ImportError: the `openai` package is not installed.
            ValueError: the address is invalid, or a limit is out of range.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url must be an address such as http://localhost:8080/v1; got {base_url!r}")
        if not timeout > 0 or retries < 0 or parallel < 1:
            raise ValueError(
                "timeout must be above 0, retries at least 0 and parallel at least 1; "
                f"got {timeout}, {retries} and {parallel}"
            )
        host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
        super().__init__(f"openai:{parts.scheme}://{host}{parts.path}#{model}", sampling, budget)
        self.model = model
        self._client = _client(base_url, timeout, retries)
        self._timeout = timeout
        self._parallel = parallel
        self._circuit = CircuitBreaker(tolerance=parallel, pause=pause)
        self._lock = threading.Lock()
        self._form: str | None = None  # unknown before the first answer

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        timeout: float = 60.0,
    ) -> OpenAILLM:
        """Connect to a server and, without ``#model``, use the first model that it lists.

        Args:
            url: ``http://host:port/v1#model``; ``/v1`` is added if there is no path.
            sampling: sampling settings.
            budget: limits on what the model may cost.
            timeout: seconds without data after which a request fails.

        Raises:
            ConnectionError: the server does not answer, or refuses the key.
            ValueError: the address names no model and the server lists none.
        """
        address, _, model = url.partition("#")
        if urlsplit(address).path in ("", "/"):
            address = address.rstrip("/") + "/v1"
        client = _client(address, min(timeout, 10.0), retries=1)
        listed = _listed_models(client, address)
        if not model and not listed:
            raise ValueError(f"the server at {address} lists no models: name one, as in {address}#model")
        return cls(address, model or listed[0], sampling=sampling, budget=budget, timeout=timeout)

    def _complete(
        self, requests: Sequence[SampleRequest], options: CompletionOptions, until: float | None
    ) -> list[Completion]:
        def one(request: SampleRequest) -> Completion:
            return self._one(request, options, until)

        first: list[Completion] = []
        if self._circuit.is_half_open or (options.schema is not None and self._form is None):
            # One request tests whether the server is up, or accepts a schema, before all are sent.
            first = [one(requests[0])]
        rest = requests[len(first) :]
        if not rest:
            return first
        with ThreadPoolExecutor(min(self._parallel, len(rest)), "rapport-llm") as pool:
            return first + list(pool.map(one, rest))

    def _one(self, request: SampleRequest, options: CompletionOptions, until: float | None) -> Completion:
        import openai

        timeout = self._timeout if until is None else min(self._timeout, until - time.monotonic())
        if timeout <= 0:
            return Completion("", error="not sent: the budget's seconds are spent", sent=False)
        if self._circuit.is_open:
            return Completion("", error="not sent: the server has not answered for some time", sent=False)
        try:
            completion = self._request(request, options, timeout)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Completion("", error=f"the server refuses the request: {error}")
        except (openai.OpenAIError, ValueError) as error:
            self._note_failure(error)
            return Completion("", error=f"{type(error).__name__}: {error}")
        self._circuit.succeeded()
        return completion

    def _request(self, request: SampleRequest, options: CompletionOptions, timeout: float) -> Completion:
        """Send one request in the first response format that the server accepts."""
        import openai

        if options.schema is None:
            return self._send(request, options, "text", timeout)
        forms = _FORMS if self._form is None else (self._form,)
        for form in forms:
            try:
                completion = self._send(request, options, form, timeout)
            # Some servers fail on an unknown response format (500) where others refuse it (400, 422).
            except (openai.BadRequestError, openai.UnprocessableEntityError, openai.InternalServerError) as error:
                if form == forms[-1]:
                    raise
                logger.info("%s does not accept the response format %s: %s", self.identity, form, error)
            else:
                if self._form is None and form == "text":
                    logger.warning("%s accepts no JSON schema: its answers are only checked", self.identity)
                self._form = form
                return completion
        raise AssertionError("unreachable: the last form returns or raises")

    def _send(self, request: SampleRequest, options: CompletionOptions, form: str, timeout: float) -> Completion:
        extra: dict[str, Any] = {}
        if options.schema is not None and form != "text":
            schema = dict(options.schema)
            inner = {"name": "answer", "schema": schema, "strict": True}
            content = {"json_schema": inner} if form == "json_schema" else {"schema": schema}
            extra["response_format"] = {"type": form, **content}
        if options.logprobs:
            extra |= {"logprobs": True, "top_logprobs": 1}  # llama-cpp-python gives none without top_logprobs
        messages: list[Any] = [{"role": "user", "content": printable(request.prompt)}]
        if options.system is not None:
            messages.insert(0, {"role": "system", "content": printable(options.system)})
        raw = self._client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=messages,
            max_tokens=options.max_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            seed=sample_seed(self.sampling.seed, request.number),
            timeout=timeout,
            **extra,
        )
        with self._lock:
            self.meter.retries += raw.retries_taken
        return _completion(raw.parse(), options)

    def _note_failure(self, error: Exception) -> None:
        if (pause := self._circuit.failed()) is not None:
            logger.warning("%s does not answer (%s): no requests for %g s", self.identity, error, pause)


def _completion(response: Any, options: CompletionOptions) -> Completion:
    """The completion in a server's response, which may be malformed."""
    try:
        choice = response.choices[0]
        text = choice.message.content or ""
        usage = response.usage
        prompt_tokens, completion_tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    except (AttributeError, IndexError, TypeError):
        raise ValueError("the server's response is no chat completion") from None
    error = None
    if options.schema is not None and choice.finish_reason == "length":
        error = f"the answer was cut off after {completion_tokens} tokens"
    logprobs = _logprobs(choice) if options.logprobs else None
    if options.logprobs and logprobs is None:
        error = error or "logprobs=True: the server gives no log-probabilities; use another server or a GGUF file"
    return Completion(printable(str(text)), prompt_tokens or 0, completion_tokens or 0, error=error, logprobs=logprobs)


def _logprobs(choice: Any) -> tuple[float, ...] | None:
    """Log-probabilities of the tokens of a choice; None where the server gives none."""
    try:
        return tuple(float(token.logprob) for token in choice.logprobs.content)
    except (AttributeError, TypeError, ValueError):
        return None


def _client(base_url: str, timeout: float, retries: int) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise ImportError(
            'a server needs the openai package: pip install "rapport-gym[llm]" (or give a GGUF file instead)'
        ) from error
    key = os.environ.get(KEY_VARIABLE) or "none"
    return OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=retries)


def _listed_models(client: OpenAI, address: str) -> list[str]:
    import openai

    try:
        return [model.id for model in client.models.list().data or []]
    except openai.APIConnectionError as error:
        raise ConnectionError(
            f"no language model server answers at {address} ({error}): start it, or check host, port and path"
        ) from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ConnectionError(
            f"the server at {address} refuses the key: set the environment variable {KEY_VARIABLE}"
        ) from error
    except (openai.OpenAIError, ValueError, AttributeError, TypeError):
        return []  # some servers do not list their models
