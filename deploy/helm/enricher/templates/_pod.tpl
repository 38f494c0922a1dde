{{- /* What the pods of the StatefulSet and of the tests have in common. */}}

{{- define "enricher.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "enricher.name" .) }}
{{- end }}

{{- define "enricher.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "enricher.pod" -}}
serviceAccountName: {{ include "enricher.serviceAccount" . }}
automountServiceAccountToken: false
# Service links set ENRICHER_… variables if there is a Service named enricher, and
# enricher would read them as flags.
enableServiceLinks: false
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "enricher.name" . }}
  - name: secret-key
    secret:
      secretName: {{ required "secretKey.existingSecret must name a Secret that holds the app's secret key" .Values.secretKey.existingSecret }}
      defaultMode: 0440
      items: [{key: {{ .Values.secretKey.key | quote }}, path: secret-key}]
  {{- with .Values.kafka.sasl }}
  {{- if .existingSecret }}
  - name: sasl
    secret:
      secretName: {{ .existingSecret }}
      defaultMode: 0440
      items: [{key: {{ .key | quote }}, path: password}]
  {{- end }}
  {{- end }}
  {{- with .Values.kafka.tls.existingSecret }}
  - name: tls
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with .Values.extraVolumes }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}

{{- define "enricher.container" -}}
image: {{ include "enricher.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  # The name of the pod is unique and stays the same across restarts.
  - name: ENRICHER_INSTANCE
    valueFrom:
      fieldRef: {fieldPath: metadata.name}
  - name: ENRICHER_ADMIN_ADDR
    value: ":9464"
  {{- with include "enricher.memoryLimit" . }}
  - name: GOMEMLIMIT
    value: {{ . }}
  {{- end }}
  {{- with .Values.extraEnv }}{{ toYaml . | nindent 2 }}{{ end }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
resources: {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/enricher/config
    readOnly: true
  # Mounts a directory, because a file that is mounted with subPath does not change
  # when its Secret does.
  - name: secret-key
    mountPath: /etc/enricher/secret-key
    readOnly: true
  {{- if .Values.kafka.sasl.existingSecret }}
  - name: sasl
    mountPath: /etc/enricher/sasl
    readOnly: true
  {{- end }}
  {{- if .Values.kafka.tls.existingSecret }}
  - name: tls
    mountPath: /etc/enricher/tls
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}

{{- /* The arguments of run and of check. */}}
{{- define "enricher.args" -}}
- --config
- /etc/enricher/config/enricher.yaml
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* GOMEMLIMIT: nine tenths of the container's memory limit, because the rest of
       the process is not on Go's heap. Nothing without a limit, or if extraEnv has it. */}}
{{- define "enricher.memoryLimit" -}}
{{- $limit := dig "limits" "memory" "" .Values.resources }}
{{- range .Values.extraEnv }}{{ if eq .name "GOMEMLIMIT" }}{{ $limit = "" }}{{ end }}{{ end }}
{{- if $limit }}
{{- $bytes := 0.0 }}
{{- if kindIs "string" $limit }}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?([kMGT]|[KMGT]i|[eE][0-9]+)?$" $limit) }}
{{- fail (printf "resources.limits.memory: %q is not a number of bytes such as 1Gi" $limit) }}
{{- end }}
{{- $unit := regexFind "[kKMGT]i?$" $limit }}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $bytes = mulf (float64 (trimSuffix $unit $limit)) (get $factors $unit) }}
{{- else }}
{{- $bytes = float64 $limit }}
{{- end }}
{{- printf "%dKiB" (int64 (divf (mulf $bytes 0.9) 1024)) }}
{{- end }}
{{- end }}

{{- /* Fails if extraArgs or extraEnv set a flag that other parts of the chart rely on. */}}
{{- define "enricher.checkExtras" -}}
{{- range list "config" "instance" "admin-addr" "drain-timeout" "secret-key-file" }}
{{- $flag := . }}
{{- $elsewhere := eq $flag "drain-timeout" | ternary "set config.drain-timeout" "the chart sets it" }}
{{- range $.Values.extraArgs }}
{{- if regexMatch (printf "^--%s(=|$)" $flag) . }}{{ fail (printf "extraArgs: --%s: %s" $flag $elsewhere) }}{{ end }}
{{- end }}
{{- range $.Values.extraEnv }}
{{- if eq .name (printf "ENRICHER_%s" ($flag | upper | replace "-" "_")) }}{{ fail (printf "extraEnv: %s: %s" .name $elsewhere) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
