"""A stand-in for a Kubernetes API server: one process, in memory, on loopback, no bigger than we need.

It carries kopf, an unmodified kubectl and this project's tests: discovery, OpenAPI v3, CRDs (pruned, defaulted,
validated, CEL rules), printer columns, resourceVersions, generations, finalizers, the status subresource, watches with
bookmarks. Every cluster test runs on it and on the real API server alike; a difference is a bug here. Its words are
those of kube-apiserver 1.36.

What it does not do:

- **Authorization**: whoever asks may do everything; SelfSubjectAccessReview always says yes. Tokens only tell who asks,
  and no token at all means the administrator, because kubectl sends none over plain HTTP, which is all that is spoken.
- **Persistence, TLS, protobuf answers, audit, quotas, webhooks, API priority, pages** (`limit` and `continue`).
- **Controllers and nodes**: a Deployment makes no Pods, no ServiceAccount `default` appears, owners' dependents stay.
  Only namespaces and CRDs that are deleted take their content with them.
- **Knowledge of built-in kinds**: Roles, Deployments and so on are stored as they come, unvalidated, undefaulted. Of
  ConfigMaps and Secrets the keys, the size and `immutable` are checked, and `stringData` is taken in; types of Secrets
  and base64 are not checked. `kubectl explain` knows CRDs only. A strategic merge patch that holds a list of objects
  is refused (415).
- **Field ownership**: no managedFields. A server-side apply merges what it names and removes nothing; it never
  conflicts. Duplicate keys in JSON are not reported, names and labels are checked, annotations and finalizers are not.
- **CRDs**: one version each, no conversion, no scale subresource. A schema keyword, format or CEL option that is not
  enforced here makes the CRD be refused, so that nothing is let through in silence.
- **Faults**: put `openairun_devkit.api_proxy` in front of it.
"""

from openairun_devkit.cluster.server import StandInCluster

__all__ = ["StandInCluster"]
