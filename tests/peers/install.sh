#!/usr/bin/env bash
# Installs what the scripts of a folder need, pinned, once: install.sh FOLDER [SCRIPTS]
# Python's packages go into FOLDER/venv, Node's into FOLDER/node_modules, beside a copy of the Node scripts.
set -euo pipefail
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
scripts=${2:-$here}
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
"$here/../compat/venv.sh" "$folder/venv" "$scripts/requirements.txt"
for script in "$scripts"/*.mjs; do cp "$script" "$folder/"; done
cmp --silent "$scripts/package.json" "$folder/made-of.json" && exit 0
cp "$scripts/package.json" "$folder/package.json"
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts)
cp "$scripts/package.json" "$folder/made-of.json"
