{{/* What the operator may do where it watches: the rules of a ClusterRole, or of a Role in the one namespace. */}}
{{- define "fanout-operator.rules" -}}
# The resources themselves. The operator changes only their finalizers, by a patch of their metadata.
- apiGroups: [fanout.openfactory.io]
  resources: [natsclusters, kafkachannels, assetforwarders]
  verbs: [get, list, watch, patch]
- apiGroups: [fanout.openfactory.io]
  resources: [natsclusters/status, kafkachannels/status, assetforwarders/status]
  verbs: [patch]
# Children have an owner reference to their forwarder or cluster that blocks its deletion. The admission plugin
# OwnerReferencesPermissionEnforcement asks for this permission.
- apiGroups: [fanout.openfactory.io]
  resources: [assetforwarders/finalizers, natsclusters/finalizers]
  verbs: [update]
# The ring and the configuration of forwarders; the router watches the rings. The Role of forwarders' pods lets them read their
# ring. Nobody may grant what they may not do themselves, so the operator needs get, list and watch for that too.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# Credentials that resources refer to are read, watched as metadata only, and projected into one Secret for each forwarder.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
# The account that a forwarder's pods run under, and what makes them reachable.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# The servers of a managed NatsCluster.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
# The revisions of configurations that pods use, or would use again after a rollback.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
# Lets a forwarder's pods read their own ring's ConfigMap, and that one only.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
# Pods tell which ring they run. A patched annotation makes the kubelet update a pod's mounted credentials at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# The operator replaces a server's pod by an eviction, so every PodDisruptionBudget is respected.
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
# What a person should see in `kubectl describe`.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
