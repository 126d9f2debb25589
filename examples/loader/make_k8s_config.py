"""Print a Secret and a ConfigMap for the deployments, from config.yml and a file of secrets.

::

    python make_k8s_config.py config.yml secrets.yml | kubectl apply -f -

The ConfigMap holds ``config.yml`` as it is; the Secret holds the secrets as environment
variables, in capitals, as the loader reads them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from dosna.loader import Config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("secrets", type=Path)
    parser.add_argument("--name", default="dosna-loader", help="of both (dosna-loader)")
    options = parser.parse_args()
    # Notice a wrong key or value here, and not in a pod.
    config = Config.read(options.config, override="/dev/null", environ={})
    Config.read(options.config, override="/dev/null", secrets=options.secrets, environ={})
    if config.inventory.startswith("sqlite"):
        print(f"{options.config}: pods share no SQLite file: give a PostgreSQL", file=sys.stderr)
    secrets = yaml.safe_load(options.secrets.read_text()) or {}
    metadata = {"name": options.name, "labels": {"app": "dosna-loader"}}
    made = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"config.yml": options.config.read_text()},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "stringData": {key.upper(): str(value) for key, value in secrets.items()},
        },
    ]
    yaml.dump_all(made, sys.stdout, sort_keys=False, default_style=None)


if __name__ == "__main__":
    main()
