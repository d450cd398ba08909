"""Without a cluster to act on, one line says what to do."""

from pathlib import Path

import pytest
from kubernetes.aio.config import kube_config

from openairun_devkit.kubectl import write_kubeconfig
from openairun_operator.kube.cluster import Cluster, ClusterError


async def refusal(monkeypatch: pytest.MonkeyPatch, kubeconfig: str) -> str:
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", kubeconfig)
    with pytest.raises(ClusterError) as raised:
        await Cluster.connect()
    return str(raised.value)


async def test_a_kubeconfig_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = await refusal(monkeypatch, f"{tmp_path}/one:{tmp_path}/two")
    assert f"no such file: {tmp_path}/one, {tmp_path}/two. Set KUBECONFIG" in said


@pytest.mark.parametrize("text", ["", "- a list", "kind: Config\n", "\t{", "contexts: 1\n"])
async def test_a_kubeconfig_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    said = await refusal(monkeypatch, str(file))
    assert said.startswith(f"cannot connect to a cluster: {file} cannot be used: ")
    assert "\n" not in said


async def test_a_folder_is_no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "IsADirectoryError" in await refusal(monkeypatch, str(tmp_path))


async def test_the_cluster_is_told_by_its_address_and_context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    write_kubeconfig(file, server="http://127.0.0.1:1", token="secret-token")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    cluster = await Cluster.connect()
    await cluster.close()
    assert cluster.where == "http://127.0.0.1:1 (context devkit)"
