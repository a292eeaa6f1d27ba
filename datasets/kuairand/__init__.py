"""KuaiRand: Pure, 1K and 27K."""
