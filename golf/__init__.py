"""The ML system: data, model, training, quantization and evaluation of one seed."""

__version__ = "0.1.0"
