"""The engine process: data, inner steps, evaluation. No keys, no network; arrays pass as file paths (design section 3, "Processes")."""
