"""Models named by where they are on the Hugging Face Hub, fetched by llama-cpp-python's own loader."""

from __future__ import annotations

from pathlib import Path

PREFIX = "hf:"
FORMS = f"{PREFIX}OWNER/REPOSITORY/FILE.gguf or {PREFIX}OWNER/REPOSITORY:PATTERN"


def fetch(reference: str) -> Path:
    """The GGUF file that a reference names, downloaded into the Hub's own cache where it is not there yet.

    A file named exactly and fetched before is found without a connection; a pattern is looked up on the Hub.

    Args:
        reference: ``hf:owner/repository/file.gguf``, or ``hf:owner/repository:*q4_0.gguf`` for the one file that the
            pattern matches.

    Raises:
        ValueError: the reference has neither form, or no file or several match it.
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
        # Called on something else than the class, the loader fetches the file and leaves it unopened.
        load = vars(Llama)["from_pretrained"].__func__
        return Path(load(lambda model_path: model_path, repository, name))
    except ValueError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the Hub has no repository {repository} that may be read: check {reference}"
        ) from error
    except Exception as error:  # of whichever library the installed huggingface_hub speaks HTTP with
        raise ConnectionError(
            f"{reference} cannot be fetched from the Hub ({type(error).__name__}: {error}): connect to the internet, "
            "set HF_ENDPOINT to a mirror, or give the path of a GGUF file"
        ) from error


def parse(reference: str) -> tuple[str, str]:
    """Repository and file name or pattern of a reference.

    Raises:
        ValueError: it has neither form.
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
