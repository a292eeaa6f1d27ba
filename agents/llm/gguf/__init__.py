"""GGUF files run by llama.cpp: one context that many prompts share, grammars, seeded sampling."""
