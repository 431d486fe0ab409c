"""Nothing is said to anybody: every verb with every engine, watched from outside the process.

``strace`` sees native libraries and child processes (where it is not permitted, an empty network namespace with a
resolver of our own does). No connection, no look-up, nothing in the home folder, nothing written outside the folders
that were named.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import pytest
from support.bundle_factory import make_bundle
from support.kserve_server import Model, serve
from support.outside import Watched, best_way, watch, ways
from support.slide_factory import texture, write_slide
from support.timm_or_skip import timm_or_skip

from stamp_deploy.bundle import load_bundle
from stamp_deploy.bundle.triton import write_repository
from stamp_deploy.cli import cli
from stamp_deploy.system.offline import KNOWN
from stamp_deploy.writers import load_writer
from stamp_deploy.writers.formats import FORMATS

TRAP = Path(__file__).parent / "support" / "python_trap"
COMMAND = (sys.executable, "-m", "stamp_deploy.cli")
watched_only = pytest.mark.skipif(best_way() is None, reason=f"nothing can watch a process here: {ways()}")

RUN_TIME: dict[str, str] = {
    "audit": "audit {done}",
    "batch": "batch {slides} --bundle {bundle} -o {new} --engine {engine}",
    "bench": "bench {slide} --bundle {bundle} --engine {engine} --seconds 1",
    "build": "build {bundle} --engine tensorrt",
    "doctor": "doctor",
    "fhir": "fhir {result} -o {new}.json",
    "formats": "formats",
    "infer": "infer {slide} --bundle {bundle} -o {new} --engine {engine} --write {writers}",
    "inspect": "inspect {slide}",
    "models": "models",
    "parity": "parity {bundle} -o {new}.json",
    "render": "render {result} -o {new} --write heatmaps,report,geojson",
    "summary": "summary {done} -o {new}",
    "compare": "compare {result} {result} -o {new}",
    "sign": "sign {own_bundle} --key {key}",
    "triton": "triton {bundle} -o {new} --device cpu",
    "verify": "verify {bundle}",
    "watch": "watch {slides} --bundle {bundle} -o {new} --engine {engine} --once --settle 0.1 --poll 0.1",
}
"""Verb -> a command of it; those that name an engine run with each (parity tries all that load here by itself)."""
LEARNING: dict[str, str] = {
    "cohort": "cohort build {samples} -o {new}",
    "train": "train {config} -o {new}",
    "train-head": "train-head {features} {labels} -o {new} --folds 2 --epochs 2",
    "evaluate": "evaluate {run} -o {new} --no-tier1",
    "evaluate-head": "evaluate-head {heads} {features} {labels} -o {new} --draws 20",
    "hest-bench": "hest-bench {bench} --embeddings {embeddings} -o {new}",
    "compare-encoders": "compare-encoders {labels} --encoder a={features} --encoder b={features} -o {new} --folds 2 "
    "--epochs 1 --seeds 1 --draws 20",
    "export": "export {run} -o {new}",
}
ARCHIVES: dict[str, str] = {
    "dicomweb": "dicomweb pull http://127.0.0.1:9/dicom-web --accession S26-1 -o {new}",
    "dimse": "dimse pull 127.0.0.1:9 --accession S26-1 -o {new}",
}
"""Verbs whose purpose is a connection -> a command of it, to a port where nobody listens."""
SERVERS: dict[str, str] = {"view": "view {done} --slides {slides} --no-browser"}
"""Verbs that listen until they are stopped -> a command of it."""
STOP_WHEN_READY = """
import subprocess, sys
running = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
assert running.stdout.readline().split()[1].startswith("http://127.0.0.1:")
running.terminate()
sys.exit(running.wait())
"""
ENGINES = ("onnxruntime", "openvino", "auto")
NO_GPU_HERE = {"build"}
"""Verbs that say here that they have no GPU, after they have looked for one."""
SMALL_DEMO = """
import sys
import stamp_deploy.export.demo.demo as demo
demo.TRAINING_SEEDS, demo.HELD_OUT_SEEDS = (11, 12), (31, 32)
demo.SECTION_SIZE.update(width=1920, height=1440)
demo.SLIDE_SIZE.update(width=1920, height=1440)
demo.START.update(warm_up_steps=2)
demo.ALIGNMENT.update(epochs=1)
sys.argv = ["stamp-deploy", "demo", "-o", sys.argv[1]]
from stamp_deploy.cli import main
main()
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A slide in a folder, a bundle, a key, a finished batch."""
    folder = tmp_path_factory.mktemp("quiet")
    (folder / "slides").mkdir()
    slide = write_slide(folder / "slides" / "slide.svs", texture(600, 600))
    bundle = make_bundle(folder / "bundle", tile_px=64)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", folder / "key.pem"], check=True)
    names = {"slide": slide, "slides": folder / "slides", "bundle": bundle, "done": folder / "done"}
    batch = [*COMMAND, "batch", slide, "--bundle", bundle, "-o", folder / "done", "--engine", "onnxruntime"]
    subprocess.run([*map(str, batch), "--write", "json,hdf5"], check=True, capture_output=True, timeout=120)
    (names["result"],) = (path.parent for path in (folder / "done").glob("*/DONE"))
    return {**names, "key": folder / "key.pem", "writers": ",".join(name for name in FORMATS if _there(name))}


def _there(writer: str) -> bool:
    """Whether what a writer needs is installed; those that want a DICOM slide are left to the DICOM test."""
    try:
        return not hasattr(load_writer(writer), "check")
    except Exception:
        return False


def check(seen: Watched, folder: Path, *, code: int = 0) -> None:
    """Fail on any word to the outside, anything in the home folder, anything written outside `folder`."""
    assert seen.contacts == []
    assert seen.home == []
    assert [path for path in seen.written if not path.startswith(str(folder)) and path.startswith("/")] == []
    assert seen.code == code, seen.err


def test_every_verb_is_watched() -> None:
    verbs = set(cli.list_commands(click.Context(cli)))
    assert verbs == {*RUN_TIME, *LEARNING, *ARCHIVES, *SERVERS, "demo"}, (
        "a new verb has to be watched, too: add it to the tables here"
    )


@watched_only
@pytest.mark.parametrize(
    ("verb", "engine"),
    [(verb, engine) for verb, text in RUN_TIME.items() for engine in (ENGINES if "{engine}" in text else ("",))],
)
def test_a_verb_says_nothing_to_anybody(verb: str, engine: str, world: dict[str, object], tmp_path: Path) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    own = make_bundle(tmp_path / "own", tile_px=64) if verb == "sign" else None
    names = {**world, "new": tmp_path / "new", "engine": engine, "own_bundle": own}
    seen = watch([*COMMAND, *RUN_TIME[verb].format(**names).split()], tmp_path / "watched", cwd=tmp_path)
    check(seen, tmp_path, code=2 if verb in NO_GPU_HERE else 0)


@pytest.mark.skipif(ways()["strace"] != "", reason=f"connections are seen by strace alone: {ways()['strace']}")
@pytest.mark.parametrize("verb", ARCHIVES)
def test_a_verb_for_archives_talks_to_the_archive_alone(verb: str, tmp_path: Path) -> None:
    """The address that was named is tried, and nothing else: no look-up, no proxy, nothing at home."""
    for package in ("httpx", "python_multipart", "pynetdicom"):
        pytest.importorskip(package)
    seen = watch([*COMMAND, *ARCHIVES[verb].format(new=tmp_path / "new").split()], tmp_path / "watched", cwd=tmp_path)
    assert seen.code == 75, seen.err
    assert "cannot be reached" in seen.err
    # to port 0 nothing is sent: glibc so asks the kernel which of its own addresses it would use
    contacts = [contact for contact in seen.contacts if "port=htons(0)" not in contact]
    assert contacts and all("127.0.0.1" in contact and "(9)" in contact for contact in contacts)
    assert seen.home == []


@watched_only
def test_only_the_server_that_was_named_is_asked(world: dict[str, object], tmp_path: Path) -> None:
    loaded = load_bundle(Path(str(world["bundle"])))
    write_repository(loaded, tmp_path / "repository", device="cpu")
    with serve(Model(tmp_path / "repository", loaded.name)) as url:
        command = f"infer {world['slide']} --bundle {world['bundle']} -o {tmp_path / 'new'} --engine triton --url {url}"
        seen = watch([*COMMAND, *command.split()], tmp_path / "watched", cwd=tmp_path)
    port = url.rpartition(":")[2]
    named = [line for line in seen.contacts if f"sin_port=htons({port})" in line and '"127.0.0.1"' in line]
    assert len(named) == len([line for line in seen.contacts if "connect(" in line]) > 0
    check(
        replace(seen, contacts=[line for line in seen.contacts if "connect(" in line and line not in named]), tmp_path
    )


@watched_only
@pytest.mark.parametrize("verb", SERVERS)
def test_a_server_asks_nobody_and_stops_when_it_is_told(verb: str, world: dict[str, object], tmp_path: Path) -> None:
    command = [*COMMAND, *SERVERS[verb].format(**world).split()]
    check(watch([sys.executable, "-c", STOP_WHEN_READY, *command], tmp_path / "watched", cwd=tmp_path), tmp_path)


@watched_only
def test_dicom_writers_say_nothing_to_anybody(data_dir: Path, world: dict[str, object], tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    writers = ",".join(name for name in FORMATS if name.startswith("dicom"))
    slide = data_dir / "dicom" / "highdicom_sm_image.dcm"
    command = f"infer {slide} --bundle {world['bundle']} -o {tmp_path / 'new'} --engine onnxruntime --write {writers}"
    seen = watch([*COMMAND, *command.split(), "--mpp", "0.5", "--all-tiles"], tmp_path / "watched", cwd=tmp_path)
    check(seen, tmp_path)


@watched_only
@pytest.mark.slow
def test_the_demo_says_nothing_to_anybody(tmp_path: Path) -> None:
    timm_or_skip()
    pytest.importorskip("peft")
    command = [sys.executable, "-c", SMALL_DEMO, tmp_path / "demo"]
    check(watch(command, tmp_path / "watched", cwd=tmp_path, timeout_s=600), tmp_path)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the verbs that learn start from: samples, a cohort, a run, features with labels."""
    timm_or_skip()
    for package in ("peft", "anndata"):
        pytest.importorskip(package)
    import h5py
    from PIL import Image
    from support.cohort_factory import make_cohort, make_run, program_gmt, section
    from support.hest_factory import write_task

    folder = tmp_path_factory.mktemp("school")
    cohort = make_cohort(folder / "cohort", {"a": "p1", "b": "p2", "c": "p3"})
    gmt = program_gmt(folder / "programs.gmt")
    section(1)[0].write_h5ad(folder / "s.h5ad")
    Image.fromarray(texture(900, 900)).save(folder / "s.png")
    sample = (
        '[[samples]]\nid = "s"\npatient_id = "p"\nformat = "anndata"\ncounts = "s.h5ad"\nimage = "s.png"\nmpp = 0.5\n'
    )
    (folder / "samples.toml").write_text(f"tile_px = 32\nmpp = 1.0\nmin_genes = 10\n{sample}")
    kwargs = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    settings = {"cohort": cohort, "gmt": gmt, "pfm": "demo-vit", "timm_kwargs": json.dumps(kwargs)}
    lines = [f"{name} = {json.dumps(str(value))}" for name, value in settings.items()]
    (folder / "config.toml").write_text(
        "\n".join((*lines, 'validation = ["c"]', "tile_px = 32", "mpp = 1.0", "epochs = 1"))
    )
    rng = np.random.default_rng(0)
    (folder / "features").mkdir()
    rows = ["slide_id,patient_id,label"]
    for i in range(12):
        with h5py.File(folder / "features" / f"s{i}.h5", "w") as file:
            file["features"] = rng.normal(i % 2, 1, (20, 8)).astype(np.float32)
            file["coords"] = np.zeros((20, 2), np.int64)
        rows.append(f"s{i},p{i},{'ab'[i % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    from stamp_deploy.training.heads.bags import find_bags, read_labels
    from stamp_deploy.training.heads.config import HeadConfig
    from stamp_deploy.training.heads.train import train_head

    table = read_labels(folder / "labels.csv", find_bags(folder / "features"))
    train_head(table, folder / "heads", HeadConfig(folds=2, epochs=1, inner_folds=0, draws=5))
    bench, embeddings = write_task(folder / "hest", spots=8)
    return {
        "bench": bench, "embeddings": embeddings,
        "samples": folder / "samples.toml", "config": folder / "config.toml", "features": folder / "features",
        "labels": folder / "labels.csv", "heads": folder / "heads",
        "run": make_run(folder / "run", cohort, gmt, ("c",)),
    }  # fmt: skip


@watched_only
@pytest.mark.slow
@pytest.mark.parametrize("verb", LEARNING)
def test_learning_says_nothing_to_anybody(verb: str, school: dict[str, Path], tmp_path: Path) -> None:
    command = LEARNING[verb].format(**school, new=tmp_path / "new").split()
    check(watch([*COMMAND, *command], tmp_path / "watched", cwd=tmp_path), tmp_path)


API = """
import sys
from pathlib import Path
from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.infer import infer_slide
infer_slide(Path(sys.argv[1]), load_bundle(Path(sys.argv[2])), Path(sys.argv[3]), InferOptions())
"""


@watched_only
def test_the_api_says_nothing_to_anybody(world: dict[str, object], tmp_path: Path) -> None:
    """As a notebook uses it. Only matplotlib's own folders may appear: they are the user's there."""
    command = [sys.executable, "-c", API, world["slide"], world["bundle"], tmp_path / "new"]
    seen = watch(command, tmp_path / "watched", cwd=tmp_path)
    assert seen.contacts == [] and seen.code == 0, seen.err
    assert [path for path in seen.home if path.split("/")[1:2] not in ([], ["matplotlib"])] == []


@watched_only
def test_without_a_cache_folder_named_only_our_own_appears(world: dict[str, object], tmp_path: Path) -> None:
    text = f"infer {world['slide']} --bundle {world['bundle']} -o {tmp_path / 'new'}"
    seen = watch([*COMMAND, *text.split()], tmp_path / "watched", cwd=tmp_path, STAMP_CACHE_DIR="")
    assert seen.code == 0, seen.err
    assert seen.home, "the engine's choice is kept"
    assert [path for path in seen.home if not f"{path}/".startswith((".cache/stamp-deploy/", ".cache/"))] == []
    assert {path.split("/")[1] for path in seen.home if "/" in path} == {"stamp-deploy"}


RAY_NODE = """
import subprocess, sys, time
import stamp_deploy
import ray
address, *command = sys.argv[1:]
start = ["start", "--address", address, "--num-cpus", "1", "--object-store-memory", str(80 * 2**20), "--block"]
node = subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", *start], stdout=subprocess.DEVNULL)
try:
    ray.init(address=address, log_to_driver=False)
    for _ in range(600):  # until the node has joined
        if ray.cluster_resources().get("CPU"):
            break
        time.sleep(0.1)
    ray.shutdown()
    code = subprocess.run([sys.executable, "-m", "stamp_deploy.cli", *command, "--address", address]).returncode
finally:
    node.terminate()
    node.wait(30)
sys.exit(code)
"""
RAY_ASKS_ITS_OWN_ADDRESS = '"8.8.8.8"'
"""Ray "connects" a datagram socket there, which sends nothing, to learn which of this machine's addresses is used."""


@watched_only
@pytest.mark.slow
def test_ray_s_actors_say_nothing_to_anybody(
    world: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of a cluster with its actors and workers, and the driver: they speak to the cluster alone."""
    pytest.importorskip("ray")
    if best_way() != "strace":
        pytest.skip("in a namespace of its own the node does not find its cluster")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    except Exception as error:
        pytest.skip(f"Ray's own cluster does not start here: {error}")
    address = cluster.address
    try:
        text = (
            f"batch {world['slide']} --bundle {world['bundle']} -o {tmp_path / 'new'} --engine openvino --executor ray"
        )
        command = [sys.executable, "-c", RAY_NODE, address, *text.split()]
        root = str(Path(__file__).resolve().parents[1])
        seen = watch(command, tmp_path / "watched", cwd=tmp_path, PYTHONPATH=root, RAY_AUTH_MODE="disabled")
    finally:
        cluster.shutdown()
    assert seen.code == 0, seen.out + seen.err
    own = {"127.0.0.1", "::1", "0.0.0.0", address.rpartition(":")[0]}
    outside = [
        line for line in seen.contacts if not any(f'"{pre}{ip}"' in line for ip in own for pre in ("", "::ffff:"))
    ]
    assert [line for line in outside if RAY_ASKS_ITS_OWN_ADDRESS not in line] == []
    assert seen.home == []


SPEAKING = {
    "onnxruntime": "import onnxruntime as o; o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])",
    "openvino": "import openvino",
}


@watched_only
@pytest.mark.parametrize("package", SPEAKING)
def test_the_libraries_do_speak_without_us(package: str, world: dict[str, object], tmp_path: Path) -> None:
    """Otherwise the tests above would prove nothing. Fails where a new version behaves in another way."""
    pytest.importorskip(package)
    installed = tuple(int(part) for part in version(package).split(".")[:2])
    if installed != KNOWN[package]:
        pytest.skip(f"{package} {version(package)}: what it does alone was looked at in {KNOWN[package]}")
    encoder = Path(str(world["bundle"])) / "encoder.onnx"
    seen = watch([sys.executable, "-c", f"import sys\n{SPEAKING[package]}", encoder], tmp_path)
    assert seen.code == 0, seen.err
    assert seen.contacts or seen.home


TRAPS = {
    "a look-up": "socket.getaddrinfo('telemetry.example.org', 443)",
    "a native connection in a child": (
        "pid = os.fork() or (ctypes.CDLL(None).connect(socket.socket().fileno(), address, 16), os._exit(0))\n"
        "os.waitpid(pid, 0)"
    ),
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
}


@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("trap", TRAPS)
def test_the_watchers_see(trap: str, way: str, tmp_path: Path) -> None:
    if ways()[way]:
        pytest.skip(f"{way} {ways()[way]}")
    if way == "namespace" and trap != "a look-up":
        pytest.skip("in a namespace only look-ups, and connections after them, are seen")
    address = "address = bytes([2, 0, 1, 187, 192, 0, 2, 1]) + bytes(8)"
    script = f"import ctypes, os, socket\n{address}\ntry:\n    exec({TRAPS[trap]!r})\nexcept OSError:\n    pass"
    seen = watch([sys.executable, "-c", script], tmp_path, way=way)
    assert seen.code == 0, seen.err
    assert seen.contacts


def test_the_watcher_sees_what_is_written(tmp_path: Path) -> None:
    if best_way() != "strace":
        pytest.skip(f"needs strace: {ways()['strace']}")
    script = f"import pathlib; p = pathlib.Path({str(tmp_path)!r}, 'elsewhere'); p.mkdir(); (p / 'x').write_text('')"
    seen = watch([sys.executable, "-c", f"{script}; (pathlib.Path.home() / 'y').touch()"], tmp_path / "watched")
    assert seen.home == ["y"]
    assert {str(tmp_path / "elsewhere"), str(tmp_path / "elsewhere" / "x")} <= set(seen.written)


def trapped(record: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run with every Python process trapped: works where nothing can watch from outside."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(TRAP), "STAMP_TRAP_RECORD": str(record),
                   "STAMP_CACHE_DIR": str(record.parent / "cache")}  # fmt: skip
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, check=False, env=environment
    )


@pytest.mark.parametrize("verb", ["infer", "batch", "inspect", "verify", "doctor"])
def test_no_python_process_opens_a_socket(verb: str, world: dict[str, object], tmp_path: Path) -> None:
    names = {**world, "new": tmp_path / "new", "engine": "onnxruntime"}
    done = trapped(tmp_path / "record", *COMMAND, *RUN_TIME[verb].format(**names).split())
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "record").exists(), (tmp_path / "record").read_text()


def test_the_python_trap_works_in_a_child_that_hides_its_error(tmp_path: Path) -> None:
    script = "import socket\ntry: socket.create_connection(('192.0.2.1', 9))\nexcept BaseException: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])"
    assert trapped(tmp_path / "record", sys.executable, "-c", child).returncode == 0
    assert "socket.getaddrinfo" in (tmp_path / "record").read_text()


def test_a_library_imported_too_early_is_told_of(tmp_path: Path) -> None:
    script = (
        "import sys, types, warnings\n"
        "sys.modules['onnxruntime'] = sys.modules['openvino_telemetry'] = types.ModuleType('early')\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import stamp_deploy\n"
        "from stamp_deploy.system.offline import spoke_before\n"
        "import json\n"
        "print(json.dumps([spoke_before(), [[str(w.message), w.filename] for w in caught]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={})
    early, said = json.loads(done.stdout)
    assert early == ["onnxruntime", "openvino_telemetry"]
    for package, (text, where) in zip(early, said, strict=True):
        assert text.startswith(f"{package} was imported before stamp_deploy")
        assert where == "<string>", "the warning points at the import of stamp_deploy"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env={"ORT_DISABLE_TELEMETRY": "1"})  # fmt: skip
    assert json.loads(told.stdout)[0] == ["openvino_telemetry"]
