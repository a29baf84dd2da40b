#!/usr/bin/env bash
# Makes a Python environment with what a file of requirements pins, once: venv.sh FOLDER [REQUIREMENTS]
# Several tests may ask at the same time; the first makes it and the others wait.
set -euo pipefail
folder=$1
requirements=${2:-$(dirname "$0")/requirements.txt}
mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
cmp --silent "$requirements" "$folder/made-of.txt" && exit 0
python3 -m venv --clear "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
cp "$requirements" "$folder/made-of.txt"
