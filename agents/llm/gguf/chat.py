"""Chat templates of GGUF files: Jinja programs that may be anything, tried before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapport.agents.llm.base.interface import one_line, printable

if TYPE_CHECKING:
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import ChatFormatter

_PROBE = "Which of these do you like best?"


class TemplateError(ValueError):
    """A prompt that a chat template cannot render; the message names the file."""


class ChatTemplate:
    """The chat template of a file."""

    def __init__(self, formatter: ChatFormatter, file: Path) -> None:
        """Render a prompt on trial.

        Raises:
            ValueError: the template fails, or its text does not have the prompt in it.
        """
        self._formatter, self._file = formatter, file
        if _PROBE not in (text := self.render(_PROBE)):
            raise ValueError(
                f"{file}: its chat template drops the prompt; it renders {one_line(text)[:80]!r}. Use another file of "
                "the model, or ask it through a server that has a template of its own"
            )

    @classmethod
    def of(cls, llama: Llama, file: Path) -> ChatTemplate | None:
        """The template in a file's metadata; None where there is none.

        Raises:
            ValueError: the template cannot be used.
        """
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        template = llama.metadata.get("tokenizer.chat_template")
        if not template:
            return None

        def special(token: int) -> str:
            return llama.detokenize([token], special=True).decode("utf-8", "replace") if token >= 0 else ""

        try:
            formatter = Jinja2ChatFormatter(
                template=template, eos_token=special(llama.token_eos()), bos_token=special(llama.token_bos())
            )
        except Exception as error:  # whatever Jinja says of a program that is none
            raise ValueError(f"{file}: its chat template is no template ({_reason(error)})") from None
        return cls(formatter, file)

    def render(self, prompt: str, system: str | None = None) -> str:
        """The text of a prompt, with the system message if there is one.

        Raises:
            TemplateError: the template fails on the prompt.
            ValueError: it refuses or drops the system message.
        """
        user: Any = {"role": "user", "content": printable(prompt)}
        if system is None:
            try:
                return str(self._formatter(messages=[user]).prompt)
            except Exception as error:  # the template is a program of the file's author
                raise TemplateError(f"{self._file}: its chat template fails ({_reason(error)})") from None
        content = printable(system)
        try:
            text = str(self._formatter(messages=[{"role": "system", "content": content}, user]).prompt)
        except Exception as error:
            reason = _reason(error)
        else:
            if content.strip() in text:
                return text
            reason = "it drops the message"
        raise ValueError(
            f"system={system[:40]!r}: the model's chat template takes no system message ({reason}); write it into the "
            "prompts"
        )


def _reason(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:200]
