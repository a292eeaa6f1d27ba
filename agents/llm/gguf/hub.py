"""GGUF files on the Hugging Face Hub, downloaded by llama-cpp-python's own loader."""

from __future__ import annotations

from pathlib import Path

from rapport.agents.llm.base.interface import one_line
from rapport.agents.llm.base.secrets import scrub

PREFIX = "hf:"
FORMS = f"{PREFIX}OWNER/REPOSITORY/FILE.gguf or {PREFIX}OWNER/REPOSITORY:PATTERN"


def fetch(reference: str) -> Path:
    """Path of the GGUF file that a reference names, downloaded into the Hub's cache if it is not there.

    An exact file name that is in the cache needs no connection; a pattern always does.

    Args:
        reference: ``hf:owner/repository/file.gguf``, or ``hf:owner/repository:*q4_0.gguf`` for the one file that the
            pattern matches.

    Raises:
        ValueError: the reference has neither form, or not exactly one file matches it.
        FileNotFoundError: there is no such repository.
        ConnectionError: the Hub cannot be reached.
        ImportError: llama-cpp-python or huggingface_hub is not installed.
    """
    repository, name = parse(reference)
    try:
        from huggingface_hub import try_to_load_from_cache
        from llama_cpp import Llama
    except ImportError as error:
        raise ImportError(
            f'fetching {reference} needs llama-cpp-python and huggingface_hub: pip install "rapport-gym[llm,hub]" '
            "(or download the GGUF file and give its path)"
        ) from error
    cached = try_to_load_from_cache(repository, name)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # With a function in place of the class, the loader downloads the file and does not open it.
        load = vars(Llama)["from_pretrained"].__func__
        return Path(load(lambda model_path: model_path, repository, name))
    except ValueError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the Hub has no readable repository {repository}: check {reference}") from error
    except Exception as error:  # the type depends on the HTTP library of the installed huggingface_hub
        raise ConnectionError(
            f"{reference} cannot be fetched from the Hub ({type(error).__name__}: {one_line(scrub(str(error)))}): "
            "connect to the internet, set HF_ENDPOINT to a mirror, or give the path of a GGUF file"
        ) from error


def parse(reference: str) -> tuple[str, str]:
    """Repository and file name or pattern of a reference.

    Raises:
        ValueError: the reference has neither form.
    """
    body = reference.removeprefix(PREFIX)
    repository, colon, name = body.partition(":")
    if not colon:
        owner, _, rest = body.partition("/")
        repository, _, name = rest.partition("/")
        repository = f"{owner}/{repository}"
    if repository.count("/") != 1 or not all(repository.split("/")) or not name.lower().endswith((".gguf", "*")):
        raise ValueError(f"{reference!r} names no model on the Hub: write {FORMS}")
    return repository, name
