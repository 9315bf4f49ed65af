"""The cluster files as Ray reads them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

from hosts import REPOSITORY

FILES = ("cluster.yaml", "cluster-local.yaml")


def read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / name).read_text())
    return config


@pytest.mark.parametrize("name", FILES)
def test_a_cluster_file_is_valid_by_ray_s_own_schema(name: str) -> None:
    filled = fillout_defaults(read(name)) if name == "cluster.yaml" else prepare_config(read(name))
    validate_config(filled)
    with pytest.raises(Exception, match="typo"):
        validate_config({**filled, "typo": 1})


@pytest.mark.parametrize("name", FILES)
def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_loopback(name: str) -> None:
    config = read(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for part in ("head", "worker"):
        command = config[f"{part}_start_ray_commands"][-1]
        assert "RAY_AUTH_MODE=token" in command and "--disable-usage-stats" in command
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_both_files_install_the_same_versions() -> None:
    pins = [
        {word for word in " ".join(read(name)["setup_commands"]).split() if "==" in word} for name in FILES
    ]
    assert pins[0] == pins[1] and len(pins[0]) == 2


def test_the_aws_cluster_has_no_worker_until_one_is_needed_and_all_nodes_are_of_one_image() -> None:
    config = read("cluster.yaml")
    head, worker = (config["available_node_types"][kind] for kind in ("head", "worker"))
    assert worker["min_workers"] == 0 < worker["max_workers"] == config["max_workers"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert head["node_config"]["ImageId"] == worker["node_config"]["ImageId"] == config["metadata"]["image"]


@pytest.mark.parametrize("name", FILES)
def test_what_a_cluster_file_copies_is_here(name: str) -> None:
    local = [path for path in read(name)["file_mounts"].values() if not path.startswith("~")]
    assert local and all((Path(REPOSITORY) / path).exists() for path in local)
