"""Inference of GGUF files with llama.cpp: continuous batching in one context, grammars, seeded sampling."""
