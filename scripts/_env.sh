# Sourced by the scripts beside it: makes and updates the one environment, .venv in the repository root.
#
#   ensure_env EXTRAS    install this project editable with the given extras (`torch`, `torch,mlx` or `torch,dev`), if that has not been done yet
#
# The stamp .venv/.nostrain-EXTRAS holds a hash of pyproject.toml, the Python version and this folder's path: the environment is reused
# until one of them changes. PYTHON=/path/to/python picks the interpreter. Standard output stays free for the program that follows.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
readonly root
cd "$root"

say() { printf 'nostrain: %s\n' "$*" >&2; }

# Whether "$1" runs and is a Python that this project supports. A shim may exist and yet fail, so it is run.
supported_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ] && ! supported_python "$PYTHON"; then
        say "PYTHON=$PYTHON does not run, or is not 3.11 or 3.12"
        return 1
    fi
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3 python; do
        if supported_python "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    say "no usable Python 3.11 or 3.12 found; install one, or name it: PYTHON=/path/to/python3.11 $0"
    return 1
}

stamp_of() {
    .venv/bin/python -c '
import hashlib, sys
project = open("pyproject.toml", "rb").read()
print(hashlib.sha256(project + repr((sys.version_info, sys.argv[1:])).encode()).hexdigest())' "$root" "$1"
}

is_stamped() {
    [ -f ".venv/.nostrain-$1" ] && [ "$(cat ".venv/.nostrain-$1")" = "$(stamp_of "$1")" ]
}

# The environment is good for $1 if it was installed with $1 or with more; `dev` has the extra `mlx` in it.
is_current() {
    supported_python .venv/bin/python || return 1
    is_stamped "$1" || is_stamped torch,dev || { [ "$1" = torch ] && is_stamped torch,mlx; }
}

install_env() {
    local python log=.venv/install.log
    if ! supported_python .venv/bin/python || ! .venv/bin/python -c 'import pip' >/dev/null 2>&1; then
        python="$(find_python)" || return 1
        say "making .venv with $("$python" --version)"
        if ! "$python" -m venv --clear .venv >&2; then
            say "'$python -m venv' failed; on Debian and Ubuntu it needs the package python3-venv"
            return 1
        fi
    fi
    say "installing .[$1] into .venv: one to two minutes the first time, on a fast line"
    if ! pip_install "$1" 2>&1 | tee "$log" | large_downloads; then
        tail -n 20 "$log" >&2
        say "installation failed, see above and $log; nothing outside .venv was touched, running this again is safe"
        return 1
    fi
    stamp_of "$1" >".venv/.nostrain-$1"
    say "installed"
}

pip_install() {
    .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off -e ".[$1]"
}

# Of all that pip says, what tells a waiting person that something goes on: files of 10 MB and more, and the last step.
large_downloads() {
    grep --line-buffered -E '^ *(Downloading .*\(([0-9]{2,}(\.[0-9]+)? MB|[0-9.]+ GB)\)|Installing collected)' | cut -c 1-100 >&2 || true
}

# The lock is on the repository folder itself and is held only while installing, never by the program that follows.
ensure_env() {
    is_current "$1" && return 0
    (
        if command -v flock >/dev/null 2>&1; then
            flock --nonblock 9 || { say "another script is installing; waiting for it"; flock 9; }
        fi
        is_current "$1" || install_env "$1"
    ) 9<"$root"
}
