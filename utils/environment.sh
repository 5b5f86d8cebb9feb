# The top-level scripts source this file. It sets ROOT and PYTHON, and creates the environment if there is none.
# REQUIREMENTS lists the requirement files, separated by spaces (default: requirements.txt).

ROOT="$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)" # with CDPATH, cd could go elsewhere, and prints
unset PYTHONHOME PYTHONSAFEPATH # these change where Python looks for its library and for the modules next to a script
REQUIREMENTS="${REQUIREMENTS:-requirements.txt}"

satisfies() { # does this Python have every pinned package?
    (cd "$ROOT" && "$1" - $REQUIREMENTS) <<'PYTHON'
import re
import sys
from importlib.metadata import PackageNotFoundError, version

for path in sys.argv[1:]:
    for name, pin in re.findall(r"^([\w-]+)(?:\[[\w,-]+\])?==(\S+)", open(path).read(), re.M):
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            found = "none"
        if found != pin:
            sys.exit(f"  it has {name} {found}, but {path} requires {pin}")
PYTHON
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in python3.12 python3.11 python3.10 python3 python; do # newer ones may lack wheels of the pins
        if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.10 or newer is required, but none was found on the PATH" >&2
    return 1
}

make_environment() {
    local venv="$ROOT/.venv" base
    PYTHON="$venv/bin/python"
    if satisfies "$PYTHON" 2>/dev/null; then return; fi
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then # it does not exist, or its creation was interrupted
        base="$(find_python)"
        echo "creating the environment .venv with $("$base" --version)"
        "$base" -m venv --clear "$venv" || {
            echo "error: '$base -m venv' failed (on Debian and Ubuntu: apt install python3-venv)" >&2
            return 1
        }
    fi
    echo "installing $REQUIREMENTS into .venv (some GB and a few minutes the first time)"
    (cd "$ROOT" && "$PYTHON" -m pip install --disable-pip-version-check $(printf -- '-r %s ' $REQUIREMENTS))
}

active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
if [[ -n $active && $active != "$ROOT/.venv" && -x $active/bin/python ]]; then
    if satisfies "$active/bin/python"; then
        PYTHON="$active/bin/python"
    else
        echo "the active environment $active does not meet the requirements; using .venv"
        make_environment
    fi
else
    make_environment
fi

# glibc: keep the memory of large activations instead of returning it and faulting it in again at every step, and use
# large pages if the kernel has them (benchmarks/speed.py measures this as part of a step). Other systems ignore these.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-4294967296}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-68719476736}"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
