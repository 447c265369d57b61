"""The engine `pytorch`: torch and transformers' own modules, on CPU, CUDA or MPS. Nothing else in `learning` imports either."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # transformers reads both when it is imported
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, CUDA's matrix products are not deterministic
