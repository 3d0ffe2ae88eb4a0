"""Quantization of trained weights, and the artifact that holds them."""
