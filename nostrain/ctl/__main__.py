"""`python -m nostrain.ctl`: the same as `nostrain-ctl`."""

from nostrain.ctl.main import main

main(prog_name="nostrain-ctl")
