{{- define "portcullis.name" -}}
{{- if contains "portcullis" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-portcullis{{ end -}}
{{- end }}

{{- define "portcullis.selector" -}}
app.kubernetes.io/name: portcullis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "portcullis.labels" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "portcullis.image" -}}
{{- $repository := required "image.repository is missing: build the image and push it to your registry" .Values.image.repository -}}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}
{{- else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* A value as text. Helm reads each number of a values file as a float and prints 1048576 as 1.048576e+06. */}}
{{- define "portcullis.text" -}}
{{- if kindIs "float64" . }}{{ if eq (float64 (int64 .)) . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* Combinations that would fail later, or would lose accounts or keys. */}}
{{- define "portcullis.check" -}}
{{- $policy := required "policy is missing: --set-file policy=gateway.toml" .Values.policy -}}
{{- $issues := regexMatch `(?m)^\s*\[\s*authority\s*[\].]` $policy -}}
{{- /* The signing keys are a secret of the policy, or in the store. */ -}}
{{- $secret := regexMatch `(?m)^\s*(algorithm\s*=\s*["']HS|signing_keys\s*=\s*["']store["'])` $policy -}}
{{- $store := or .Values.store.secret (regexMatch `(?m)^\s*store\s*=` $policy) -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- $own := eq .Values.state.kind "emptyDir" -}}
{{- if and $issues $own (not $secret) -}}
{{- fail "state.kind is emptyDir, but the policy has [authority]: each pod would make its own signing key, and lose it when it ends. Set state.kind=claim, or signing_keys = \"store\" in the policy" -}}
{{- end -}}
{{- if and $issues $own (not $store) -}}
{{- fail "state.kind is emptyDir, but the policy has [authority]: the accounts would be lost with the pod. Set store.secret or state.kind=claim" -}}
{{- end -}}
{{- if and $issues $several (not $store) -}}
{{- fail "several replicas with [authority] need PostgreSQL: set store.secret" -}}
{{- end -}}
{{- if and $several (not $own) (not .Values.state.existingClaim) (ne .Values.state.accessMode "ReadWriteMany") -}}
{{- fail "several replicas share the state folder: set state.accessMode=ReadWriteMany, or one replica" -}}
{{- end -}}
{{- end }}
