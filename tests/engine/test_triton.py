"""`--engine triton`, against a small server of the tests and, where it can be installed, a real tritonserver."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.bundle_factory import DIM, make_bundle
from support.cli_runner import Runner, runner  # noqa: F401 - the fixture
from support.kserve_server import Model, serve
from support.slide_factory import texture, write_slide
from support.triton_server import tritonserver

from stamp_deploy.bundle import load_bundle
from stamp_deploy.bundle.triton import write_repository
from stamp_deploy.config import InferOptions
from stamp_deploy.engine import load_engine
from stamp_deploy.engine.golden import load_golden
from stamp_deploy.engine.registry import open_engine
from stamp_deploy.engine.triton_http import TritonServer
from stamp_deploy.errors import BundleError, EngineError, UsageError

MAX_BATCH = 16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("triton") / "bundle", global_scores=True, golden_tiles=24))


@pytest.fixture(scope="module")
def repository(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    write_repository(bundle, folder, max_batch=MAX_BATCH, device="cpu")
    return folder


@pytest.fixture
def model(repository, bundle):
    return Model(repository, bundle.name)


@pytest.fixture(scope="module")
def real(repository, tmp_path_factory):
    """Ports (HTTP, gRPC) of a tritonserver that holds the repository as it was written."""
    with tritonserver(repository, tmp_path_factory.mktemp("server")) as ports:
        yield ports


@pytest.fixture(params=["small", "tritonserver"])
def url(request, repository, bundle):
    if request.param == "tritonserver":
        yield f"http://127.0.0.1:{request.getfixturevalue('real')[0]}"
    else:
        with serve(Model(repository, bundle.name)) as address:
            yield address


class TestAServer:
    def test_says_bit_for_bit_what_onnx_runtime_says_here(self, bundle, url):
        ours = open_engine(bundle, "onnxruntime", batch=MAX_BATCH)
        theirs = load_engine(bundle, "triton", batch=MAX_BATCH, url=url)
        tiles, _ = load_golden(bundle)
        for count in (1, 5, MAX_BATCH):
            want, found = ours.run(tiles[:count]), theirs.run(tiles[:count])
            for name in bundle.outputs:
                np.testing.assert_array_equal(getattr(found, name), getattr(want, name))
        assert theirs.info.details["model"] == f"{bundle.name} version 1"
        assert theirs.info.details["backend"] == "onnxruntime" and theirs.info.details["instances"] == "1 x cpu"
        assert theirs.info.version and theirs.info.device == url and theirs.info.precision == "fp32"
        theirs.close()
        theirs.close()

    def test_a_batch_beyond_its_limit_goes_in_pieces(self, bundle, url):
        engine = load_engine(bundle, "triton", batch=3 * MAX_BATCH - 1, url=url)
        assert engine.max_batch == 3 * MAX_BATCH - 1 and engine.piece == MAX_BATCH
        assert "the server's limit" in engine.info.details["batch"]
        tiles = np.resize(load_golden(bundle)[0], (engine.max_batch, 64, 64, 3))
        want = open_engine(bundle, "onnxruntime", batch=engine.max_batch).run(tiles)
        np.testing.assert_allclose(engine.run(tiles).embedding, want.embedding, rtol=0, atol=2e-5)
        engine.close()

    def test_a_stream_keeps_order_and_may_reuse_its_array(self, bundle, url):
        engine = load_engine(bundle, "triton", batch=4, url=url)
        tiles, _ = load_golden(bundle)
        alone = [engine.run(tiles[i : i + 4]).pathways for i in range(0, 20, 4)]
        ring = np.empty_like(tiles[:4])

        def reused():
            for i in range(0, 20, 4):
                ring[...] = tiles[i : i + 4]
                yield ring
                ring[...] = 0

        for found, want in zip(engine.stream(reused()), alone, strict=True):
            np.testing.assert_allclose(found.pathways, want, rtol=0, atol=2e-5)
        engine.close()

    def test_scores_a_slide(self, bundle, url, tmp_path, runner):  # noqa: F811
        slide = write_slide(tmp_path / "slide.svs", texture(600, 600))
        asked = ("infer", slide, "--bundle", bundle.path, "--write", "json,hdf5", "--json")
        done = runner(*asked, "-o", tmp_path / "remote", "--engine", "triton", "--url", url)
        assert done.code == 0, done.err
        here = runner(*asked, "-o", tmp_path / "here", "--engine", "onnxruntime")
        remote, local = json.loads(done.out), json.loads(here.out)
        assert remote["engine"]["name"] == "triton" and remote["engine"]["why"] == "asked for"
        assert remote["tiles"] == local["tiles"] and remote["tiles"]["ok"] > 0
        for one, other in zip(remote["heads"], local["heads"], strict=True):
            assert one["call"] == other["call"] and one["value"] == pytest.approx(other["value"], abs=1e-5)

    def test_parity_accepts_it(self, bundle, url, runner):  # noqa: F811
        done = runner("parity", bundle.path, "--engine", "triton", "--url", url)
        assert done.code == 0 and "ACCEPTED" in done.out and "triton" in done.out
        assert runner("parity", bundle.path, "--url", url).code == 2


class TestTheRepositoryOnARealServer:
    def test_every_model_is_ready(self, real, repository):
        server = TritonServer(f"http://127.0.0.1:{real[0]}")
        names = [path.name for path in repository.iterdir()]
        assert len(names) == 4
        for name in names:
            assert server.get(f"/models/{name}/ready") == {}
        server.close()

    def test_over_grpc_bit_for_bit(self, real, bundle):
        client = _grpc(real[1])
        tiles, _ = load_golden(bundle)
        ours = open_engine(bundle, "onnxruntime", batch=MAX_BATCH)
        for count in (1, 7, MAX_BATCH):
            answer = client.infer(bundle.name, [_tensor("tiles", tiles[:count], "UINT8")])
            want = ours.run(tiles[:count])
            for name in bundle.outputs:
                np.testing.assert_array_equal(answer.as_numpy(name), getattr(want, name))

    def test_a_head_over_grpc_bit_for_bit(self, real, bundle):
        from stamp_deploy.engine.head_model import HeadModel

        embeddings = np.random.default_rng(0).normal(size=(37, DIM)).astype(np.float32)
        for head in bundle.heads:
            answer = _grpc(real[1]).infer(f"{bundle.name}-{head.name}", [_tensor("embeddings", embeddings, "FP32")])
            logits, attention = HeadModel(bundle, head).run(embeddings)
            np.testing.assert_array_equal(answer.as_numpy("logits"), logits)
            np.testing.assert_array_equal(answer.as_numpy("attention"), attention)

    def test_tiles_of_several_clients_share_batches_and_keep_their_rows(self, real, bundle):
        tiles, golden = load_golden(bundle)
        engines = [load_engine(bundle, "triton", batch=4, url=f"http://127.0.0.1:{real[0]}") for _ in range(6)]
        before = _stats(real[0], bundle.name)
        for _ in range(100):  # a loaded machine may send them one after the other: until a batch was shared
            with ThreadPoolExecutor(6) as pool:
                found = list(pool.map(lambda k: engines[k].run(tiles[4 * k : 4 * k + 4]), range(6)))
            np.testing.assert_allclose(
                np.concatenate([one.embedding for one in found]), golden.embedding, rtol=0, atol=2e-5
            )
            after = _stats(real[0], bundle.name)
            requests = after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
            if after["execution_count"] - before["execution_count"] < requests:
                break
        else:
            pytest.fail("six clients at a time never shared a batch")
        assert after["inference_count"] - before["inference_count"] == 4 * requests
        assert max(int(one["batch_size"]) for one in after["batch_stats"]) <= MAX_BATCH
        for engine in engines:
            engine.close()

    @pytest.mark.parametrize("shape", [(1, 32, 64, 3), (1, 64, 64, 4), (64, 64, 3), (MAX_BATCH + 1, 64, 64, 3)])
    def test_wrong_shapes_are_refused(self, real, bundle, shape):
        server = TritonServer(f"http://127.0.0.1:{real[0]}")
        with pytest.raises(EngineError, match="refuses with status 400"):
            server.infer(bundle.name, "1", np.zeros(shape, np.uint8), bundle.widths)
        utils = pytest.importorskip("tritonclient.utils")
        with pytest.raises(utils.InferenceServerException):
            _grpc(real[1]).infer(bundle.name, [_tensor("tiles", np.zeros(shape, np.uint8), "UINT8")])
        server.close()


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "cause"),
        [
            ("not ours", "does not say which bundle"),
            ("not ready", "refuses with status 400"),
        ],
    )
    def test_at_the_start(self, bundle, model, fault, cause):
        model.fault = fault
        with serve(model) as url, pytest.raises(EngineError, match=cause):
            load_engine(bundle, "triton", batch=4, url=url)

    @pytest.mark.parametrize(
        ("fault", "cause"),
        [
            ("fails", "status 500: onnx runtime error 6"),
            ("redirects", "status 302"),
            ("another version", "answers for another model"),
            ("cut", "answers with other tensors"),
        ],
    )
    def test_in_the_middle(self, bundle, model, fault, cause):
        with serve(model) as url:
            engine = load_engine(bundle, "triton", batch=4, url=url)
            model.fault = fault
            with pytest.raises(EngineError, match=cause):
                engine.run(load_golden(bundle)[0][:4])
            engine.close()

    def test_a_row_that_is_missing_is_noticed(self, bundle, model):
        with serve(model) as url:
            engine = load_engine(bundle, "triton", batch=4, url=url)
            model.fault = "one row short"
            with pytest.raises(BundleError, match="answers 4 tiles"):
                engine.run(load_golden(bundle)[0][:4])
            engine.close()

    def test_another_bundle_under_the_name_is_refused(self, bundle, model):
        with serve(model) as url:
            engine = load_engine(bundle, "triton", batch=4, url=url)
            model.sha256 = "0" * 64
            with pytest.raises(EngineError, match="written from bundle 000000000000"):
                engine.run(load_golden(bundle)[0][:4])
            engine.close()
            with pytest.raises(EngineError, match="stamp-deploy triton"):
                load_engine(bundle, "triton", batch=4, url=url)

    def test_one_that_is_wrong_fails_parity_each_time(self, bundle, model):
        with serve(model) as url:
            assert load_engine(bundle, "triton", batch=4, url=url).info.name == "triton"
            model.fault = "wrong"  # nothing that this machine can see has changed
            engine = load_engine(bundle, "triton", batch=4, url=url)
            assert engine.info.name == "onnxruntime" and "triton was asked for and failed parity" in engine.info.why
            engine.close()

    def test_a_connection_that_the_server_closed_is_opened_again(self, bundle, model):
        model.fault = "closes"
        with serve(model) as url:
            engine = load_engine(bundle, "triton", batch=4, url=url)
            want = load_golden(bundle)[1].embedding[:4]
            np.testing.assert_allclose(engine.run(load_golden(bundle)[0][:4]).embedding, want, rtol=0, atol=2e-5)
            engine.close()

    def test_nobody_there(self, bundle):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{held.getsockname()[1]}"
            with pytest.raises(EngineError, match="cannot be reached: Connection refused"):
                load_engine(bundle, "triton", batch=4, url=url)

    def test_a_server_that_does_not_answer(self, bundle, monkeypatch):
        monkeypatch.setattr("stamp_deploy.engine.triton_http.ANSWER_S", 0.2)
        silent = _listening(lambda connection: threading.Event().wait(5))
        with silent as url, pytest.raises(EngineError, match="no answer in time"):
            load_engine(bundle, "triton", batch=4, url=url)

    def test_a_server_of_another_kind(self, bundle):
        with _listening(lambda connection: connection.sendall(b"\0\0\x18\4 http2\r\n\r\n")) as url:
            with pytest.raises(EngineError, match=r"does not speak HTTP.*8001 is for gRPC"):
                load_engine(bundle, "triton", batch=4, url=url)
            with pytest.raises(EngineError, match="TLS"):
                load_engine(bundle, "triton", batch=4, url=url.replace("http:", "https:"))

    def test_an_answer_without_end_is_not_read(self, bundle, monkeypatch):
        monkeypatch.setattr("stamp_deploy.engine.triton_http.MAX_HEADER_BYTES", 1000)
        flood = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(100_000)
        endless = _listening(lambda connection: connection.sendall(flood))
        with endless as url, pytest.raises(EngineError, match="more than was asked for"):
            load_engine(bundle, "triton", batch=4, url=url)


class TestAskingForOne:
    @pytest.mark.parametrize(
        "url",
        ["host:8000", "grpc://host:8001", "http://", "http://user:secret@host", "http://host/?key=1", "http://h:x", ""],
    )
    def test_addresses_that_are_none(self, bundle, url):
        with pytest.raises(EngineError) as told:
            load_engine(bundle, "triton", batch=4, url=url)
        assert "secret" not in str(told.value)

    @pytest.mark.parametrize(
        "asked", [{"engine": "triton"}, {"url": "http://h"}, {"engine": "auto", "url": "http://h"}]
    )
    def test_engine_and_address_go_together(self, asked):
        with pytest.raises(UsageError, match="go together"):
            InferOptions(**asked)

    @pytest.mark.parametrize("name", ["auto", "openvino", "onnxruntime"])
    def test_engines_of_this_machine_take_no_address(self, bundle, name):
        with pytest.raises(EngineError, match="asks no server"):
            load_engine(bundle, name, batch=4, url="http://127.0.0.1:1")

    def test_the_server_decides_the_precision(self, bundle, model):
        with serve(model) as url, pytest.raises(EngineError, match="fp32, not in fp16"):
            load_engine(bundle, "triton", batch=4, precision="fp16", url=url)

    def test_a_proxy_of_the_environment_is_not_used(self, bundle, model, monkeypatch):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        with serve(model) as url:
            load_engine(bundle, "triton", batch=4, url=url).close()

    def test_a_path_of_a_proxy_stays_in_front(self, bundle, model):
        with serve(model) as url, pytest.raises(EngineError, match="404"):
            load_engine(bundle, "triton", batch=4, url=f"{url}/gpu/")
        assert model.paths == ["/gpu/v2"]


class _listening:
    """The address of a server that does one thing with each connection."""

    def __init__(self, act) -> None:
        self.act = act

    def __enter__(self) -> str:
        self.socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(4096)
                self.act(connection)
            except OSError:
                pass

    def __exit__(self, *error: object) -> None:
        self.socket.close()


def _grpc(port: int):
    module = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    return module.InferenceServerClient(f"127.0.0.1:{port}")


def _tensor(name: str, values: np.ndarray, kind: str):
    from tritonclient.grpc import InferInput

    tensor = InferInput(name, list(values.shape), kind)
    tensor.set_data_from_numpy(values)
    return tensor


def _stats(port: int, name: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{name}/stats", timeout=30) as answer:
        (found,) = json.loads(answer.read())["model_stats"]
    return found
