"""What stands for the images that the manifests name: this interpreter and this machine's PostgreSQL, as each image starts them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from network import BIN, ROOT
from services import postgres_programs

SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What docker-library's entrypoint of postgres does at the first start, in short.
POSTGRES = """
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    printf '%s\\n' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password $POSTGRES_INITDB_ARGS -D "$PGDATA"
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql" -w start
    PGPASSWORD="$POSTGRES_PASSWORD" createdb -h /var/run/postgresql -U "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
"""


@dataclass(frozen=True)
class Image:
    """An image: environment, what it starts by itself, where, users that it knows, and folders that it has beside this machine's."""

    environment: dict[str, str]
    start: list[str] = field(default_factory=list)
    workdir: str = "/"
    users: tuple[str, ...] = ()
    folders: dict[str, Path] = field(default_factory=dict)


def image_of(reference: str) -> Image:
    """The image of that name."""
    name = reference.rsplit("/", 1)[-1].partition(":")[0].partition("@")[0]
    if name == "spfem":
        told = _environment_of("train") | {"PATH": f"{BIN}:{SYSTEM}", "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": "/app"}
        return Image(told, workdir="/app", users=("spfem:x:1000:1000::/spfem:/bin/sh",), folders={"/app": ROOT})
    if name == "mlflow":
        return Image({"PATH": f"{BIN}:{SYSTEM}", "MLFLOW_DISABLE_TELEMETRY": "true"})
    if name == "postgres":
        users = ("postgres:x:999:999::/var/lib/postgresql:/bin/bash",)
        told = {"PATH": f"{postgres_programs()}:{SYSTEM}", "PGDATA": "/var/lib/postgresql/data", "LANG": "C.UTF-8"}
        return Image(told, ["bash", "-c", POSTGRES], users=users)
    raise AssertionError(f"nothing stands for the image {reference}")


def _environment_of(stage: str) -> dict[str, str]:
    """ENV of one stage of cluster/Dockerfile."""
    text = (ROOT / "cluster/Dockerfile").read_text().replace("\\\n", " ")
    text = text.split(f" AS {stage}\n", 1)[1].split("\nFROM ")[0]
    lines = " ".join(line.removeprefix("ENV ") for line in text.splitlines() if line.startswith("ENV "))
    return dict(re.findall(r"(\w+)=(\S+)", lines))
