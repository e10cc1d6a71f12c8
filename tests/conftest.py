"""What every test shares: the reference data's place, one local Ray cluster, tiny corpora and one run trained on them.

Everything here is made once per session and only read: a test that changes files works on a copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["page_fixtures", "s3_fixtures", "serving_fixtures", "tree_fixtures"]

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared" / "data"

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_REPORT_URL", "http://127.0.0.1:9")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own turn
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `pytest -n 2 --dist loadgroup`: what shares the session's cluster stays in one process and comes first, since
    it takes longest; of the rest a module stays together, with what it has set up."""
    items.sort(key=lambda item: "ray_cluster" not in getattr(item, "fixturenames", ()))
    for item in items:
        together = "ray" if "ray_cluster" in getattr(item, "fixturenames", ()) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(together))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the reference model and the real faces; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: the reference data is not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local cluster for the session: 4 declared CPUs, so that Train and Data both find room on 2 cores."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=512 * 2**20,
        include_dashboard=False,
        logging_level="warning",
        log_to_driver=True,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the synthetic corpora of recipe `tiny`, `bp4d` and `dfew`, as that recipe would write them."""
    from ssm_platform.synthetic import PRESETS, write_corpus

    folder = tmp_path_factory.mktemp("corpora")
    for name in ("bp4d", "dfew"):
        write_corpus(name, folder / name, PRESETS["tiny"], 1)
    return folder


@pytest.fixture(scope="session")
def tiny_run(ray_cluster: None, tiny_corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of recipe `tiny`, trained to its end, evaluated and published in `registry` beside it."""
    from ssm_platform.base.overrides import override
    from ssm_platform.evaluate.assessment import assess
    from ssm_platform.runs.recipes import tiny
    from ssm_platform.train.running import train

    places = {f"data.corpora.{name}.root": str(tiny_corpora / name) for name in ("bp4d", "dfew")}
    config = override(tiny(), {"storage": str(tmp_path_factory.mktemp("runs")), **places})
    folder = train(config).folder
    assess(folder)
    return Path(folder)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One torch thread for the tests of a module: the same computation gives the same bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
