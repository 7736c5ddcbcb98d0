"""sdx: experiments that make LLMs good at languages they are bad at."""

__version__ = "0.1.0"
