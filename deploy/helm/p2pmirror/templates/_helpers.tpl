{{/* Names and parts that several templates share. */}}

{{- define "p2pmirror.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" }}
{{- end }}

{{/* 45 characters leave room for what is appended: names of Kubernetes have 63. */}}
{{- define "p2pmirror.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains (include "p2pmirror.name" .) .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "p2pmirror.name" .) | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "p2pmirror.selectorLabels" -}}
app.kubernetes.io/name: {{ include "p2pmirror.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "p2pmirror.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "p2pmirror.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "p2pmirror.image" -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "p2pmirror.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "p2pmirror.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "p2pmirror.bootstrapService" -}}
{{ include "p2pmirror.fullname" . }}-members
{{- end }}

{{- define "p2pmirror.bootstrap" -}}
{{- if eq .Values.bootstrap "kubernetes" -}}
kubernetes:{{ .Release.Namespace }}/{{ include "p2pmirror.bootstrapService" . }}
{{- else -}}
dns:{{ include "p2pmirror.bootstrapService" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:{{ .Values.ports.router }}
{{- end }}
{{- end }}

{{- define "p2pmirror.keySecret" -}}
{{- default (printf "%s-key" (include "p2pmirror.fullname" .)) .Values.clusterKey.existingSecret }}
{{- end }}

{{- define "p2pmirror.cacheName" -}}
{{ include "p2pmirror.fullname" . }}-cache
{{- end }}

{{- define "p2pmirror.cacheServiceName" -}}
{{- default (include "p2pmirror.cacheName" .) .Values.sharedCache.service.name }}
{{- end }}

{{- define "p2pmirror.contentPath" -}}
{{ .Values.containerd.root }}/io.containerd.content.v1.content
{{- end }}

{{/* A value of the settings as the text that a variable holds; large numbers without an exponent. */}}
{{- define "p2pmirror.text" -}}
{{- if kindIs "float64" . }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{/* Texts become variables of the environment: the data of a config map. */}}
{{- define "p2pmirror.variables" -}}
{{- range $key, $value := . }}
{{- if not (or (kindIs "slice" $value) (kindIs "invalid" $value)) }}
P2PMIRROR_{{ upper $key }}: {{ include "p2pmirror.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Lists become a file of settings. */}}
{{- define "p2pmirror.file" -}}
{{- $lists := dict }}
{{- range $key, $value := . }}
{{- if kindIs "slice" $value }}{{ $_ := set $lists $key $value }}{{ end }}
{{- end }}
{{- toToml $lists }}
{{- end }}

{{/* What agents and shared caches have in common; settings of the values win. */}}
{{- define "p2pmirror.commonSettings" -}}
{{- $common := dict "bootstrap" (include "p2pmirror.bootstrap" .) "shutdown_grace" (printf "%ds" (max 1 (sub (int .Values.terminationGracePeriodSeconds) 5))) }}
{{- $_ := set $common "router_addr" (printf ":%d" (int .Values.ports.router)) }}
{{- if .Values.clusterKey.enabled }}{{ $_ := set $common "peer_key_file" "/etc/p2pmirror/key/key" }}{{ end }}
{{- if .Values.registries }}{{ $_ := set $common "registries" .Values.registries }}{{ end }}
{{- toYaml $common }}
{{- end }}

{{- define "p2pmirror.agentSettings" -}}
{{- $own := dict "registry_addr" (printf ":%d" (int .Values.ports.registry)) "observability_addr" (printf ":%d" (int .Values.ports.observability)) }}
{{- $_ := set $own "containerd_sock" .Values.containerd.socket }}
{{- $_ := set $own "containerd_namespace" .Values.containerd.namespace }}
{{- if .Values.cache.enabled }}
{{- $_ := set $own "cache_dir" (printf "%s/cache" .Values.cache.hostPath) }}
{{- $_ := set $own "cache_max_bytes" .Values.cache.size }}
{{- $_ := set $own "data_dir" (printf "%s/data" .Values.cache.hostPath) }}
{{- else }}
{{- $_ := set $own "scratch_dir" "/tmp" }}
{{- end }}
{{- if and .Values.clusterKey.enabled .Values.allowedClients }}{{ $_ := set $own "allowed_clients" .Values.allowedClients }}{{ end }}
{{- toYaml (mergeOverwrite (include "p2pmirror.commonSettings" . | fromYaml) $own (deepCopy .Values.settings)) }}
{{- end }}

{{- define "p2pmirror.cacheSettings" -}}
{{- $own := dict "store" "none" "seed" "true" "registry_addr" ":5000" "observability_addr" ":9090" "cache_dir" "/var/lib/p2pmirror/cache" "data_dir" "/var/lib/p2pmirror/data" }}
{{- $_ := set $own "cache_max_bytes" (include "p2pmirror.cacheSize" .) }}
{{- if and .Values.clusterKey.enabled .Values.sharedCache.allowedClients }}{{ $_ := set $own "allowed_clients" .Values.sharedCache.allowedClients }}{{ end }}
{{- toYaml (mergeOverwrite (include "p2pmirror.commonSettings" . | fromYaml) $own (deepCopy .Values.settings) (deepCopy .Values.sharedCache.settings)) }}
{{- end }}

{{/* Nine tenths of the volume, unless it is said: an eviction needs room to write. */}}
{{- define "p2pmirror.cacheSize" -}}
{{- $volume := .Values.sharedCache.persistence }}
{{- if .Values.sharedCache.size -}}
{{ .Values.sharedCache.size }}
{{- else if not $volume.enabled -}}
20Gi
{{- else if hasSuffix "Gi" $volume.size -}}
{{ div (mul (trimSuffix "Gi" $volume.size | atoi) 1024 9) 10 }}Mi
{{- else if hasSuffix "Ti" $volume.size -}}
{{ div (mul (trimSuffix "Ti" $volume.size | atoi) 1024 1024 9) 10 }}Mi
{{- else -}}
{{ fail (printf "sharedCache.size: say how much content a volume of %s may have, for instance 90%% of it" $volume.size) }}
{{- end }}
{{- end }}

{{/* Probes of every agent; `observability` is the name of the port. */}}
{{- define "p2pmirror.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: page}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: page}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: page}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}

{{/* The arguments of `configure containerd`: an odd file in that directory keeps no agent from starting. */}}
{{- define "p2pmirror.configureArgs" -}}
- configure
- containerd
- --lenient
- --config-path=/host{{ .Values.configure.configPath }}
- --owner={{ .Release.Namespace }}/{{ .Release.Name }}
- --address=http://127.0.0.1:{{ .Values.ports.registry }}
{{- if and .Values.sharedCache.enabled (eq .Values.sharedCache.service.type "NodePort") }}
- --address=http://$(HOST_IP):{{ .Values.sharedCache.service.nodePort }}
{{- end }}
{{- range .Values.configure.mirrors }}
- {{ printf "--address=%s" . | quote }}
{{- end }}
{{- range .Values.configure.registries }}
- {{ printf "--registry=%s" . | quote }}
{{- end }}
{{- range .Values.configure.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
