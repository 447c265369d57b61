"""Text into shards of tokens, whatever its size: `python -m nostrain.learning.corpus`, which `nostrain-ctl data build` runs. No torch here."""
