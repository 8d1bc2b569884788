"""Values of the database: PostgreSQL by CloudNativePG, or one of yours."""

from typing import Annotated, Literal

from msgspec import Meta

from cfscale.render.helm.base import Model, Natural, Port, Positive, Texts


class External(Model, frozen=True, kw_only=True):
    """A database of yours."""

    secret: Annotated[str, Meta(description="A Secret of yours with host, port, dbname, username and password.")] = ""
    port: Annotated[Port, Meta(description="Its port, for the network policy.")] = 5432
    cidr: Annotated[str, Meta(description="Its addresses, for the network policy.")] = "0.0.0.0/0"


class Backup(Model, frozen=True, kw_only=True):
    """Backups to an object store, by the barman-cloud plugin of CloudNativePG."""

    destination_path: Annotated[str, Meta(description="Such as s3://bucket/path; empty: there are no backups.")] = ""
    endpoint_url: Annotated[str, Meta(description="Of a store that is not AWS's.")] = ""
    credentials_secret: Annotated[
        str, Meta(description="A Secret of yours with ACCESS_KEY_ID and ACCESS_SECRET_KEY; empty: the account's role.")
    ] = ""
    schedule: Annotated[str, Meta(description="When a base backup is taken; six fields, seconds first.")] = ""
    retention: Annotated[
        str, Meta(pattern="^([1-9][0-9]*[dwm])?$", description="How long it can be restored to any moment.")
    ] = ""


class Pool(Model, frozen=True, kw_only=True):
    """Connections of one pool."""

    min_size: Annotated[Natural, Meta(description="Connections that are kept open.")]
    max_size: Annotated[Positive, Meta(description="Connections that it opens at most.")]
    mode: Annotated[Literal["transaction", "session"], Meta(description="When a connection is given back.")] = (
        "transaction"
    )
    wait_seconds: Annotated[Positive, Meta(description="How long a client waits for a connection.")] = 30
    connect_seconds: Annotated[Positive, Meta(description="How long to try a server that is gone.")] = 3


class Database(Model, frozen=True, kw_only=True):
    """PostgreSQL."""

    mode: Annotated[
        Literal["cloudnative-pg", "external"], Meta(description="The operator's cluster, or a database of yours.")
    ] = "cloudnative-pg"
    name: Annotated[str, Meta(description="Name of the database and of its owner.")] = "app"
    image: Annotated[str, Meta(description="PostgreSQL image of the operator; empty: its default.")] = ""
    max_connections: Annotated[Natural, Meta(description="All that full pools hold, and a few to administrate.")] = 0
    synchronous: Annotated[Natural, Meta(description="Copies that a commit waits for.")] = 0
    audit: Annotated[bool, Meta(description="Log statements with pgaudit.")] = False
    parameters: Annotated[Texts, Meta(description="More parameters of PostgreSQL.")] = {}
    wal_size: Annotated[str, Meta(description="A volume for the write-ahead log of its own; empty: none.")] = ""
    read_pool: Annotated[bool, Meta(description="A second pool, to the copies, for reads.")] = False
    pool: Pool
    external: External = External()
    backup: Backup = Backup()
