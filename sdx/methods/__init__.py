"""One module per method; each reads like its paper."""
