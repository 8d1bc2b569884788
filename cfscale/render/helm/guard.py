"""Values by which a deployment is guarded: secrets, network, accounts, encryption."""

from typing import Annotated, Literal

from msgspec import Meta

from cfscale.render.helm.base import Model, Object, Texts


class ExternalSecret(Model, frozen=True, kw_only=True):
    """A store from which the External Secrets operator fetches the password."""

    store: Annotated[str, Meta(description="Name of the store; empty: not used.")] = ""
    kind: Annotated[Literal["SecretStore", "ClusterSecretStore"], Meta(description="Kind of the store.")] = (
        "ClusterSecretStore"
    )
    key: Annotated[str, Meta(description="Where the password lies in the store.")] = ""
    refresh: Annotated[str, Meta(description="How often it is fetched.")] = "1h"


class Auth(Model, frozen=True, kw_only=True):
    """The password of queue, memory and cache: made up in the cluster unless it is yours."""

    existing_secret: Annotated[str, Meta(description="A Secret of yours with the key queue-password.")] = ""
    external_secret: ExternalSecret = ExternalSecret()


class NetworkPolicy(Model, frozen=True, kw_only=True):
    """Who may talk to whom: nobody, but for these."""

    enabled: Annotated[bool, Meta(description="Deny all traffic that is not listed.")] = True
    edges: Annotated[dict[str, list[str]], Meta(description="From a service to those that it asks.")]
    dns_namespace: Annotated[str, Meta(description="Where the cluster's DNS runs.")] = "kube-system"
    internet: Annotated[
        list[str], Meta(description="Services that may reach HTTPS outside of the cluster, such as models' APIs.")
    ] = []
    private_ranges: Annotated[list[str], Meta(description="What is not outside.")]
    clients: Annotated[list[Object], Meta(description="Peers that may reach the load balancer; empty: everybody.")] = []
    monitoring_namespace: Annotated[str, Meta(description="Where Prometheus and KEDA run.")] = "monitoring"
    operator_namespace: Annotated[str, Meta(description="Where the database's operator runs.")] = "cnpg-system"


class Security(Model, frozen=True, kw_only=True):
    """Encryption in transit, and users of the machine."""

    mesh: Annotated[
        Literal["none", "linkerd", "istio"], Meta(description="Service mesh that encrypts between services.")
    ] = "none"
    require_encryption: Annotated[bool, Meta(description="Promised by the tier: exposing without TLS is refused.")] = (
        False
    )
    host_users: Annotated[bool, Meta(description="false: user namespaces, where the cluster has them.")] = True


class Rbac(Model, frozen=True, kw_only=True):
    """Roles for people; the pods themselves have none."""

    create: Annotated[bool, Meta(description="Roles to look at and to operate the deployment.")] = False
    viewers: Annotated[list[Object], Meta(description="Subjects that may look.")] = []
    operators: Annotated[list[Object], Meta(description="Subjects that may scale and restart as well.")] = []


class ServiceAccount(Model, frozen=True, kw_only=True):
    """The account of the pods; it has no token and no rights."""

    create: Annotated[bool, Meta(description="Whether it is made.")] = True
    name: Annotated[str, Meta(description="Instead of the full name.")] = ""
    annotations: Annotated[Texts, Meta(description="Such as a cloud's identity.")] = {}
