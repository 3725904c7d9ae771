# Sourced by the other scripts: finds Python and makes the virtual environments.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() {
    echo "$*" >&2
}

find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        # Debian ships the module venv without ensurepip, and then no environment can be made.
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "archiver needs Python 3.11 or newer with its venv module; on Debian: apt-get install python3 python3-venv"
    return 1
}

# ensure_environment DIRECTORY [EXTRAS]: a virtual environment in the repository that holds archiver, editable, in the
# versions of constraints.txt. It is made again when anything that it was made from has changed.
ensure_environment() {
    local directory="$root/$1" requirement="$root${2:+[$2]}" python wanted
    python="$(find_python)"
    wanted="$requirement $("$python" -VV) $(cat "$root/pyproject.toml" "$root/scripts/constraints.txt")"
    if [[ -f $directory/complete && "$(cat "$directory/complete")" == "$wanted" ]]; then
        return
    fi
    say "Installing archiver${2:+ with $2} into $1 (once) ..."
    "$python" -m venv --clear "$directory"
    # Newer versions of pip want the constraints of the isolated build apart; older ones know only the first variable.
    PIP_CONSTRAINT="$root/scripts/constraints.txt" PIP_BUILD_CONSTRAINT="$root/scripts/constraints.txt" \
        "$directory/bin/pip" install --quiet --disable-pip-version-check --editable "$requirement"
    echo "$wanted" >"$directory/complete"
}
