{{/* What every pod takes from its values: where it runs. */}}
{{- define "spfem.scheduled" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Labels of a pod, with those of its values, and its annotations: (dict "context" $ "component" "mlflow" "pod" values). */}}
{{- define "spfem.podMetadata" -}}
labels:
  {{- include "spfem.labels" (dict "context" .context "component" .component) | nindent 2 }}
  {{- with .pod.labels }}{{ toYaml . | nindent 2 }}{{ end }}
{{- with .pod.annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A map as environment. */}}
{{- define "spfem.envOf" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* Names of Secrets as envFrom. */}}
{{- define "spfem.envFrom" -}}
{{- with . | uniq }}
envFrom:
{{- range . }}
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Containers from values, with the chart's securityContext where they have none: (dict "context" $ "containers" list). */}}
{{- define "spfem.containers" -}}
{{- $security := include "spfem.containerSecurity" .context | fromYaml -}}
{{- range .containers }}
- {{- merge (deepCopy .) (dict "securityContext" $security) | toYaml | nindent 2 }}
{{- end }}
{{- end }}

{{/* Certificates of authorities of one's own, as OpenSSL, requests, botocore and curl look for them. */}}
{{- define "spfem.ca" -}}
{{- if or .Values.certificates.configMap .Values.certificates.secret }}true{{ end -}}
{{- end }}

{{- define "spfem.caEnv" -}}
{{- if include "spfem.ca" . }}
{{- $file := printf "/etc/spfem/ca/%s" .Values.certificates.key }}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" "CURL_CA_BUNDLE" }}
- {name: {{ . }}, value: {{ $file }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "spfem.caMount" -}}
{{- if include "spfem.ca" . }}
- {name: authorities, mountPath: /etc/spfem/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "spfem.caVolume" -}}
{{- if include "spfem.ca" . }}
- name: authorities
  {{- if .Values.certificates.secret }}
  secret: {secretName: {{ .Values.certificates.secret }}}
  {{- else }}
  configMap: {name: {{ .Values.certificates.configMap }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* The login at this release's MLflow, unless another one is named. */}}
{{- define "spfem.mlflowLogin" -}}
{{- if and .Values.mlflow.enabled .Values.mlflow.auth.enabled (not .Values.mlflow.clientSecret) }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom: {secretKeyRef: {name: {{ include "spfem.mlflowClientSecret" . }}, key: MLFLOW_TRACKING_USERNAME}}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "spfem.mlflowClientSecret" . }}, key: MLFLOW_TRACKING_PASSWORD}}
{{- end }}
{{- end }}
