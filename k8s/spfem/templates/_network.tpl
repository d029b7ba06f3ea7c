{{/* The pods of the Ray cluster, head and workers. */}}
{{- define "spfem.rayPods" -}}
matchLabels: {app.kubernetes.io/instance: {{ .Release.Name }}}
matchExpressions:
  - {key: spfem/component, operator: In, values: [head, worker]}
{{- end }}

{{/* Rules to S3 and to what hands out identities. The metadata service, which gives a node's own credentials, is never in the first. */}}
{{- define "spfem.storageEgress" -}}
- to:
    {{- range .Values.networkPolicy.storage.cidrs }}
    - ipBlock: {cidr: {{ . }}{{ if eq . "0.0.0.0/0" }}, except: [169.254.0.0/16]{{ end }}}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.storage.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- range .Values.networkPolicy.identity }}
- to:
    - ipBlock: {cidr: {{ .cidr }}}
  ports:
    - {port: {{ .port }}, protocol: TCP}
{{- end }}
{{- end }}
