"""A small language model of our own: trained in torch, run by llama.cpp."""
