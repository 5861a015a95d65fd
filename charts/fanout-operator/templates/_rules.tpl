{{/* What the operator may do where it watches: a ClusterRole's rules, or those of a Role in the one namespace. */}}
{{- define "fanout-operator.rules" -}}
# The resources themselves. They are never changed but for their finalizers, which is a patch of their metadata.
- apiGroups: [fanout.openfactory.io]
  resources: [natsclusters, kafkachannels, assetforwarders]
  verbs: [get, list, watch, patch]
- apiGroups: [fanout.openfactory.io]
  resources: [natsclusters/status, kafkachannels/status, assetforwarders/status]
  verbs: [patch]
# Children name their forwarder or cluster as an owner whose deletion waits for them; where the admission plugin
# OwnerReferencesPermissionEnforcement is on, that asks for this.
- apiGroups: [fanout.openfactory.io]
  resources: [assetforwarders/finalizers, natsclusters/finalizers]
  verbs: [update]
# The ring and the configuration of forwarders; the router watches the rings. The Role of forwarders' pods lets them read their
# ring, and nobody may grant what they may not do themselves: get, list and watch are needed for that too.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# Credentials that resources refer to are read, watched as metadata only, and projected into one Secret for each forwarder.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
# What a forwarder's pods run under, and by which they are reached.
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
# Which configurations pods use, or would use again after a rollback.
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
# Pods say which ring they run. An annotation, patched when credentials change, makes the kubelet bring them at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# A server's pod is evicted to be replaced, when all others are well. So every PodDisruptionBudget is respected.
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
# What a person should see in `kubectl describe`.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
