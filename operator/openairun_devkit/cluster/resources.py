"""What kinds of objects there are: the built-in ones that are stored as they come, and those of CRDs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column. `path` is a JSONPath as in additionalPrinterColumns."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object in one version. Two are the same if group and plural are."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    counts_generations: bool = False
    columns: tuple[Column, ...] = (AGE,)
    schema: Body | None = None
    """The CRD's openAPIV3Schema; None: built in, neither pruned nor validated."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.plural

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @property
    def root(self) -> str:
        """The path under which the group is served."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


EVENTS = Resource(
    "",
    "v1",
    "events",
    "Event",
    short_names=("ev",),
    columns=(
        Column("Last Seen", ".lastTimestamp", "date"),
        Column("Type", ".type"),
        Column("Reason", ".reason"),
        Column("Object", ".involvedObject.name"),
        Column("Source", ".source.component", priority=1),
        Column("Message", ".message"),
        Column("Count", ".count", "integer", priority=1),
    ),
)
NAMESPACES = Resource(
    "",
    "v1",
    "namespaces",
    "Namespace",
    namespaced=False,
    short_names=("ns",),
    has_status=True,
    columns=(Column("Status", ".status.phase"), AGE),
)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", short_names=("sa",))
CRDS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
    short_names=("crd", "crds"),
    has_status=True,
    counts_generations=True,
    columns=(Column("Created At", ".metadata.creationTimestamp"),),
)
_RBAC = ("rbac.authorization.k8s.io", "v1")
BUILT_IN = (
    NAMESPACES,
    EVENTS,
    SERVICE_ACCOUNTS,
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
    Resource("", "v1", "services", "Service", short_names=("svc",), has_status=True),
    Resource("", "v1", "pods", "Pod", short_names=("po",), has_status=True),
    Resource(
        "apps", "v1", "deployments", "Deployment", short_names=("deploy",), has_status=True, counts_generations=True
    ),
    Resource(*_RBAC, "roles", "Role"),
    Resource(*_RBAC, "rolebindings", "RoleBinding"),
    Resource(*_RBAC, "clusterroles", "ClusterRole", namespaced=False),
    Resource(*_RBAC, "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short_names=("netpol",)),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    CRDS,
)


def of_crd(crd: Body) -> Resource:
    """The resource that a CRD defines. Its one version is the one served."""
    spec = crd["spec"]
    names, version = spec["names"], spec["versions"][0]
    columns = tuple(
        Column(c["name"], c["jsonPath"], c["type"], c.get("priority", 0), c.get("description", ""))
        for c in version.get("additionalPrinterColumns", ())
    )
    return Resource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        has_status="status" in version.get("subresources", {}),
        counts_generations=True,
        columns=columns or (AGE,),
        schema=version["schema"]["openAPIV3Schema"],
    )


class Registry:
    """The resources that are served now."""

    def __init__(self) -> None:
        self._by_key = {resource.key: resource for resource in BUILT_IN}

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_key.values())

    def add(self, resource: Resource) -> None:
        self._by_key[resource.key] = resource

    def remove(self, key: tuple[str, str]) -> None:
        self._by_key.pop(key, None)

    def by_key(self, key: tuple[str, str]) -> Resource | None:
        return self._by_key.get(key)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        resource = self._by_key.get((group, plural))
        return resource if resource is not None and resource.version == version else None

    def groups(self) -> dict[tuple[str, str], list[Resource]]:
        """The resources of each group and version, in order of appearance."""
        groups: dict[tuple[str, str], list[Resource]] = {}
        for resource in self:
            groups.setdefault((resource.group, resource.version), []).append(resource)
        return groups


def discovery(resources: Iterable[Resource]) -> list[Body]:
    """APIResourceList.resources."""
    listed: list[Body] = []
    for r in resources:
        entry: Body = {
            "name": r.plural,
            "singularName": r.singular,
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": list(VERBS),
        }
        if r.short_names:
            entry["shortNames"] = list(r.short_names)
        if r.categories:
            entry["categories"] = list(r.categories)
        listed.append(entry)
        if r.has_status:
            status = {"name": f"{r.plural}/status", "singularName": "", "namespaced": r.namespaced, "kind": r.kind}
            listed.append({**status, "verbs": ["get", "patch", "update"]})
    return listed


def aggregated_discovery(groups: dict[tuple[str, str], list[Resource]]) -> list[Body]:
    """APIGroupDiscoveryList.items: what kubectl asks for first, all groups in one answer."""
    items: list[Body] = []
    for (group, version), resources in groups.items():
        listed: list[Body] = []
        for r in resources:
            kind = {"group": r.group, "version": r.version, "kind": r.kind}
            entry: Body = {
                "resource": r.plural,
                "responseKind": kind,
                "scope": "Namespaced" if r.namespaced else "Cluster",
                "singularResource": r.singular,
                "verbs": list(VERBS),
                "shortNames": list(r.short_names),
                "categories": list(r.categories),
            }
            if r.has_status:
                entry["subresources"] = [
                    {"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]}
                ]
            listed.append(entry)
        versions = [{"version": version, "resources": listed, "freshness": "Current"}]
        items.append({"metadata": {"name": group} if group else {}, "versions": versions})
    return items
