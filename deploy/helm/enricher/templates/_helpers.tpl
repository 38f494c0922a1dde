{{- define "enricher.name" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) }}
{{- /* Kubernetes limits pod names, and labels made from them, to 63 characters. */}}
{{- $name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "enricher.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Not the name of the instances, by which the Service selects them. */}}
{{- define "enricher.exporterSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-dlq-exporter
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "enricher.labels" -}}
{{ include "enricher.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* The file for --config: .Values.config, and the paths of the mounted secrets. */}}
{{- define "enricher.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if not (or (get $config "region") (get $config "api-url")) }}
{{- fail "set config.region or config.api-url" }}
{{- end }}
{{- $_ := set $config "secret-key-file" "/etc/enricher/secret-key/secret-key" }}
{{- if and (get $config "sasl-user") (not .Values.kafka.sasl.existingSecret) }}
{{- fail "kafka.sasl.existingSecret must name a Secret that holds the password of config.sasl-user" }}
{{- end }}
{{- if .Values.kafka.sasl.existingSecret }}
{{- $_ := set $config "sasl-password-file" "/etc/enricher/sasl/password" }}
{{- end }}
{{- with .Values.kafka.tls }}
{{- if .existingSecret }}
{{- $_ := set $config "tls" true }}
{{- if .ca }}{{ $_ := set $config "tls-ca" (printf "/etc/enricher/tls/%s" .ca) }}{{ end }}
{{- if .cert }}{{ $_ := set $config "tls-cert" (printf "/etc/enricher/tls/%s" .cert) }}{{ end }}
{{- if .key }}{{ $_ := set $config "tls-key" (printf "/etc/enricher/tls/%s" .key) }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- /* Converts a Go duration, such as 1m30s, to seconds. */}}
{{- define "enricher.seconds" -}}
{{- $total := 0.0 }}
{{- range regexFindAll "[0-9.]+(h|ms|m|s)" . -1 }}
{{- $number := float64 (regexFind "[0-9.]+" .) }}
{{- $unit := regexFind "[a-z]+" . }}
{{- $total = addf $total (mulf $number (get (dict "h" 3600 "m" 60 "s" 1 "ms" 0.001) $unit)) }}
{{- end }}
{{- $total }}
{{- end }}
