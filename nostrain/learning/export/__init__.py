"""The run's model as a folder of Hugging Face's: in a process of its own, `python -m nostrain.learning.export`. numpy alone."""
