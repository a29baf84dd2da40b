#!/usr/bin/env bash
# Helm's `quote` writes the integer 1048576 of a values file as "1.048576e+06".
#
# Version: Helm's engine as packaged in helm-python-sdk 0.2.2 (PyPI).
#
# A chart passes settings to a container by `value: {{ $value | quote }}`, since the value of an environment variable must
# be a string. Helm turns values from YAML into JSON first, where each number is a float64, and Go prints a float64 of a
# million or more with an exponent.
#
# Expected: the digits of the file. Seen: "999999", but "1.234567e+06". A size that works as 65536 stops the pod once it is
# a mebibyte, because few programs read an exponent where they expect an integer.
#
# The chart of Portcullis writes a number without a fraction as an integer.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install helm-python-sdk==0.2.2 PyYAML==6.0.4
mkdir -p "$folder/seen/templates"
printf 'apiVersion: v2\nname: seen\nversion: 0.0.1\n' >"$folder/seen/Chart.yaml"
cat >"$folder/seen/templates/values.yaml" <<'YAML'
{{- range $key, $value := .Values.sizes }}
{{ $key }}: {{ $value | quote }}
{{- end }}
YAML
seen=$("$folder/venv/bin/python" - "$folder/seen" <<'PYTHON'
import sys

import helm_python as helm

values = helm.values_from_yaml("sizes: { a: 65536, b: 999999, c: 1000000, d: 1048576, e: 1234567, f: '1048576' }")
with helm.Chart.load(sys.argv[1]) as chart:
    (text,) = chart.render(values, name="x", namespace="y").values()
print(" ".join(text.split()))
PYTHON
)
echo "$seen"
[ "$seen" = 'a: "65536" b: "999999" c: "1e+06" d: "1.048576e+06" e: "1.234567e+06" f: "1048576"' ]
