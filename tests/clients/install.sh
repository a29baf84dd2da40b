#!/usr/bin/env bash
# Installs the client libraries of tests/it/unread.rs, dpop.rs and websocket_clients.rs, pinned, once: install.sh FOLDER
# Python's go into FOLDER/venv, Node's into FOLDER/node_modules. Java's client is part of the JDK.
set -euo pipefail
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
"$here/../compat/venv.sh" "$folder/venv" "$here/requirements.txt"
cp "$here"/*.mjs "$folder"
cmp --silent "$here/package.json" "$folder/made-of.json" && exit 0
cp "$here/package.json" "$folder/package.json"
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts)
cp "$here/package.json" "$folder/made-of.json"
