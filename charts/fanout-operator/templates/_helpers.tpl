{{/* The name of all objects of a release. The Lease has it too, so that two releases in a namespace do not compete. */}}
{{- define "fanout-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | replace "." "-" | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The labels of selectors. They never change in a release. */}}
{{- define "fanout-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "fanout-operator.ownLabels" -}}
{{ include "fanout-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: fanout
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The labels of `commonLabels`, each after a line break. The chart's own labels take precedence. Labels that aggregate ClusterRoles
     are left out: on all objects they would give the operator's own rights to others. */}}
{{- define "fanout-operator.commonLabels" -}}
{{- $own := keys (include "fanout-operator.ownLabels" . | fromYaml) -}}
{{- range $key, $value := .Values.commonLabels }}
{{- if not (or (has $key $own) (hasPrefix "rbac.authorization.k8s.io/" $key)) }}
{{ $key | quote }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The labels of every object, never of a selector. */}}
{{- define "fanout-operator.labels" -}}
{{ include "fanout-operator.ownLabels" . }}
{{- include "fanout-operator.commonLabels" . }}
{{- end }}

{{/* The same with further labels of one object, which take precedence over the common ones. Takes a dict: root, further. */}}
{{- define "fanout-operator.labelsWith" -}}
{{- $own := include "fanout-operator.ownLabels" .root | fromYaml -}}
{{- toYaml (merge $own .further (include "fanout-operator.commonLabels" .root | fromYaml)) -}}
{{- end }}

{{- define "fanout-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "fanout-operator.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* An image's whole name. Takes a dict: image, version. */}}
{{- define "fanout-operator.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .version) -}}
{{- end -}}
{{- end }}

{{/* What the restricted pod security standard asks of a container, and a read-only root file system. The user is the image's, by
     number, or the one that the platform assigns to the namespace. */}}
{{- define "fanout-operator.containerSecurityContext" -}}
{{- if .Values.containerSecurityContext -}}
{{- $own := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- include "fanout-operator.overridden" (dict "own" $own "theirs" .Values.containerSecurityContext "root" .) -}}
{{- else -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
{{- end }}

{{- define "fanout-operator.podSecurityContext" -}}
{{- if .Values.podSecurityContext -}}
{{- $own := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- include "fanout-operator.overridden" (dict "own" $own "theirs" .Values.podSecurityContext "root" .) -}}
{{- else -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- end }}

{{/* A security context in which the user's fields replace ours, one by one. Helm's merge would ignore a `false`. */}}
{{- define "fanout-operator.overridden" -}}
{{- $context := .own -}}
{{- range $field, $value := .theirs -}}
{{- $_ := set $context $field $value -}}
{{- end -}}
{{- if not (dig "podSecurity" "setIds" true .root.Values.AsMap) -}}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" -}}
{{- end -}}
{{- toYaml $context -}}
{{- end }}

{{/* Refuses variables in `extraEnv` that are the chart's own: of two with one name the last one would count, in silence. Each one is
     listed with the value to set instead. Services and probes use the ports, so those are the chart's too. */}}
{{- define "fanout-operator.checkExtraEnv" -}}
{{- $own := dict
  "POD_NAME" ""
  "POD_NAMESPACE" ""
  "WATCH_NAMESPACE" "watchNamespace"
  "LEASE_NAME" "fullnameOverride"
  "FORWARDER_IMAGE" "forwarderImage"
  "FORWARDER_IMAGE_PULL_POLICY" "forwarderImage.pullPolicy"
  "REQUIRE_SECRET_OPT_IN" "requireSecretOptIn"
  "POD_SECURITY_IDS" "podSecurity.setIds"
  "CONCURRENCY" "concurrency"
  "LOG_LEVEL" "log.level"
  "LOG_FORMAT" "log.format"
  "METRICS_PORT" ""
  "ROUTER_PORT" ""
-}}
{{- range .Values.extraEnv -}}
{{- if hasKey $own .name -}}
{{- $value := get $own .name -}}
{{- $hint := ternary "" (printf "; set the value %s instead" $value) (eq $value "") -}}
{{- fail (printf "extraEnv: %s is the chart's own variable%s" .name $hint) -}}
{{- end -}}
{{- end -}}
{{- end }}
