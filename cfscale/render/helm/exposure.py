"""Values by which a deployment is reached from outside."""

from typing import Annotated, Literal

from msgspec import Meta

from cfscale.render.helm.base import Model, Object, Texts


class Ingress(Model, frozen=True, kw_only=True):
    """An Ingress to the load balancer."""

    enabled: Annotated[bool, Meta(description="Whether there is one.")] = False
    class_name: Annotated[str, Meta(description="Class of the controller.")] = ""
    host: Annotated[str, Meta(description="Name under which it is reached.")] = ""
    tls_secret: Annotated[str, Meta(description="Secret with the certificate; empty: no TLS.")] = ""
    annotations: Annotated[Texts, Meta(description="What its controller reads.")] = {}


class HttpRoute(Model, frozen=True, kw_only=True):
    """A route of the Gateway API to the load balancer."""

    enabled: Annotated[bool, Meta(description="Whether there is one.")] = False
    parent_refs: Annotated[list[Object], Meta(description="Gateways; their listeners carry TLS.")] = []
    hosts: Annotated[list[str], Meta(description="Names under which it is reached.")] = []


class Exposure(Model, frozen=True, kw_only=True):
    """How the load balancer is reached: from inside the cluster only, unless told otherwise."""

    service_type: Annotated[
        Literal["ClusterIP", "NodePort", "LoadBalancer"], Meta(description="Type of the balancer's Service.")
    ] = "ClusterIP"
    ip_family_policy: Annotated[
        Literal["SingleStack", "PreferDualStack", "RequireDualStack"], Meta(description="IPv4, IPv6 or both.")
    ] = "PreferDualStack"
    ingress: Ingress = Ingress()
    http_route: HttpRoute = HttpRoute()


class Sso(Model, frozen=True, kw_only=True):
    """Single sign-on before the load balancer, by oauth2-proxy."""

    enabled: Annotated[bool, Meta(description="Whether requests from outside have to sign on.")] = False
    required: Annotated[bool, Meta(description="Promised by the tier: exposing without single sign-on is refused.")] = (
        False
    )
    image: Annotated[str, Meta(description="Image of oauth2-proxy.")] = "quay.io/oauth2-proxy/oauth2-proxy:v7.12.0"
    replicas: Annotated[int, Meta(ge=1, description="Replicas of it.")] = 2
    issuer_url: Annotated[str, Meta(description="OpenID Connect issuer.")] = ""
    existing_secret: Annotated[
        str, Meta(description="A Secret of yours with client-id, client-secret and cookie-secret.")
    ] = ""
    email_domains: Annotated[list[str], Meta(description="Whose addresses are let in.")] = []
