"""What all classes of the values model share."""

from typing import Annotated, Any

from msgspec import Meta, Struct

# Objects of Kubernetes' own API: its server checks them, and nothing here looks into them.
Object = dict[str, Any]
Texts = dict[str, str]
Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]


class Model(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A mapping of the values file, which refuses what it does not know."""
