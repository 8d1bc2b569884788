"""Image names in the parts of which a chart composes them, and the user that an image runs as in a cluster."""

from cfscale.core.plan import Service
from cfscale.render.helm.values import Image

# above what machines give to users of their own
_USER = 10001


def image_of(service: Service) -> Image:
    """``registry:5000/team/app:1@sha256:..`` in its parts; what has no dot or port before the first slash has no registry."""
    name, _, digest = service.image.partition("@")
    host, slash, rest = name.partition("/")
    registry = host if slash and ("." in host or ":" in host or host == "localhost") else ""
    repository, _, tag = (rest if registry else name).partition(":")
    return Image(registry=registry, repository=repository, tag=tag, digest=digest)


def name_of(image: Image) -> str:
    """The parts put together again."""
    path = f"{image.registry}/{image.repository}" if image.registry else image.repository
    tagged = f"{path}:{image.tag}" if image.tag else path
    return f"{tagged}@{image.digest}" if image.digest else tagged


def run_as() -> int:
    """The user of all pods; the images that the catalogue names work as any user."""
    return _USER
