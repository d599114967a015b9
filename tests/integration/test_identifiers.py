"""Nothing of a patient leaves a request: not into logs, metrics, traces or errors, of any program of a run.

Pools are deployments of their own here, so that Ray carries the requests too, and every request is traced.
"""

import io
import json
from contextlib import suppress

import grpc
import httpx
import pydicom
import pytest
import scrapes
from collector import Collector, attributes
from pydicom.data import get_testdata_file
from running import Medserve, wait_until

from serving.edge.proto import inference_pb2 as pb

pytestmark = pytest.mark.integration

NAME, PATIENT, STUDY, ACCESSION, PRIVATE, BIRTH = (
    "QUINCE^MARIGOLD", "PID-8371946", "1.2.826.0.1.3680043.8.498.83719461", "ACC5551246", "WARD-NOTE-83719", "19xx0231Q",
)  # fmt: skip
LABEL = "quincelike opacity"
SECRETS = (NAME, "QUINCE", "MARIGOLD", PATIENT, STUDY, ACCESSION, PRIVATE, BIRTH, LABEL, "8371946", "quince_marigold")
TRACE = "00-{:032x}-00f067aa0ba902b7-01"
BOX = [20, 20, 90, 90]


def dicom(**changed):
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = NAME, PATIENT, ACCESSION
    dataset.StudyInstanceUID = STUDY
    with pytest.warns(UserWarning, match="Invalid value"):
        dataset.PatientBirthDate = BIRTH
    dataset.private_block(0x0099, "QUINCE WARD", create=True).add_new(0x01, "LO", PRIVATE)
    for keyword, value in changed.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


GOOD = dicom()
BAD = {
    "truncated": GOOD[: len(GOOD) // 2],
    "wrong samples": dicom(BitsAllocated=13),
    "no such photometry": dicom(PhotometricInterpretation=NAME),
    "too few pixels": dicom(Rows=4000),
    "no dicom": f"{NAME} {PATIENT}".encode() * 50,
}


class Run:
    """A server, a collector, and everything that was answered."""

    def __init__(self, server, collector, home):
        self.server, self.collector, self.home = server, collector, home
        self.answers, self.ids = [], []

    def headers(self):
        self.ids.append(f"find-me-{len(self.ids)}")
        return {"x-request-id": self.ids[-1], "traceparent": TRACE.format(len(self.ids))}

    def http(self, route, image, **said):
        files = {"image": ("quince_marigold_8371946.dcm", image, "application/dicom")}
        url = f"{self.server.http_url}/v1/{route}"
        answer = httpx.post(url, files=files, data={"request": json.dumps(said)}, headers=self.headers(), timeout=60)
        return self._keep(answer)

    def plain(self, method, path, **options):
        return self._keep(httpx.request(method, f"{self.server.http_url}{path}", headers=self.headers(), timeout=60, **options))

    def grpc(self, method, message):
        with grpc.insecure_channel(self.server.grpc_address) as channel:
            call = channel.unary_unary(f"/medserve.v1.Inference/{method}").with_call
            try:
                _, done = call(message.SerializeToString(), timeout=60, metadata=tuple(self.headers().items()))
                code, said = "OK", done.trailing_metadata()
            except grpc.RpcError as exc:
                code, said = exc.code().name, (exc.details(), exc.trailing_metadata())
        self.answers.append(str(said))
        return code

    def _keep(self, answer):
        # An answer may say what was asked for (the names of labels): errors and headers may not.
        self.answers.append(f"{answer.headers} {answer.text if answer.is_error else ''}")
        return answer.status_code

    def logs(self):
        """Every file that the run has written: path -> its bytes."""
        files = [*self.home.rglob("*"), *scrapes.run_dir(self.server).rglob("*")]
        found = {}
        for path in files:
            with suppress(OSError):  # some come and go
                if path.is_file() and not path.is_symlink():
                    found[path] = path.read_bytes()
        return found

    def said(self):
        """Everything that can be read from outside a request: where -> text."""
        found = {str(path): data.decode(errors="replace") for path, data in self.logs().items()}
        found["standard error"] = self.server.log
        found["spans"] = self.collector.text()
        for part in (scrapes.medserve, scrapes.triton, scrapes.ray):
            found[f"metrics of {part.__name__}"] = part(self.server)
        for number, answer in enumerate(self.answers):
            found[f"answer {number}"] = answer
        return found

    def find(self, words):
        """(where, word) of every word that can be found."""
        return {(where, word) for where, text in self.said().items() for word in words if word in text}

    def lines(self):
        """The request lines of the log."""
        text = (self.home / "logs" / "medserve.log").read_text()
        return [line for line in map(json.loads, text.splitlines()) if line["message"] == "request"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with Collector() as collector:
        environ = {
            "MEDSERVE_HOME": str(home),
            "MEDSERVE_SHAPE": "apart",
            "MEDSERVE_REPOSITORY__MODELS": "litemedsam,synthetic-cxr-clip",
            "MEDSERVE_ROUTER__REPLICAS": "1",
            "MEDSERVE_TRACING__ENDPOINT": collector.url,
        }
        with Medserve(**environ) as server:
            made = Run(server, collector, home)
            ask(made)
            yield made


def ask(run):
    """Good and bad requests over both fronts."""
    assert run.http("segment", GOOD, boxes=[BOX]) == 200
    assert run.http("classify", GOOD, labels=[LABEL, "other"]) == 200
    image = pb.ImageSource(image=pb.Image(data=GOOD))
    prompt = pb.ObjectPrompt(box=pb.Box(x0=20, y0=20, x1=90, y1=90))
    assert run.grpc("Segment", pb.SegmentRequest(image=image, objects=[prompt])) == "OK"
    assert run.grpc("Classify", pb.ClassifyRequest(images=[image], labels=pb.Labels(names=[LABEL, "other"]))) == "OK"
    for data in BAD.values():
        assert run.http("segment", data, boxes=[BOX]) in (400, 415, 422)
        bad = pb.ImageSource(image=pb.Image(data=data))
        assert run.grpc("Segment", pb.SegmentRequest(image=bad, objects=[prompt])) == "INVALID_ARGUMENT"
    assert run.http("segment", GOOD, boxes=[[0, 0, 9000, 9000]]) == 422
    assert run.http("segment", GOOD, boxes=[BOX], model=NAME) == 404
    assert run.http("segment", GOOD, boxes=NAME) in (400, 422)
    assert run.http("segment", GOOD, boxes=[BOX], output=NAME) in (400, 422)
    assert run.plain("GET", f"/v1/images/{NAME}") == 404
    assert run.plain("GET", f"/v1/{NAME}") == 404
    assert run.plain("POST", "/v1/segment", params={"boxes": NAME}, content=GOOD) in (400, 415, 422)
    assert run.plain("POST", "/v1/segment", content=f'{{"image": "{NAME}", '.encode()) in (400, 415, 422)
    assert run.grpc("Segment", pb.SegmentRequest(image=pb.ImageSource(image_id=NAME), objects=[prompt])) == "NOT_FOUND"
    assert run.grpc("Segment", pb.SegmentRequest(image=image, objects=[prompt], model=NAME)) == "NOT_FOUND"


def test_nothing_of_the_patient_is_found_and_the_search_can_find(run):
    wait_until(lambda: len(run.lines()) >= len(run.ids) - 1, 60)  # a route that does not exist is no call
    wait_until(lambda: {"pool", "router", "engine", "segment"} <= {span.name for _, span in run.collector.spans()}, 60)
    assert run.find(SECRETS) == set()
    found = {where.rsplit("/", 1)[-1] for where, _ in run.find([run.ids[0]])}
    assert {"medserve.log", "spans", "answer 0"} <= found


def test_a_line_tells_of_each_request(run):
    wait_until(lambda: len(run.lines()) >= len(run.ids) - 1, 60)
    lines = {line["request_id"]: line for line in run.lines()}
    first, bad, over_grpc = lines[run.ids[0]], lines[run.ids[4]], lines[run.ids[5]]
    assert (first["status"], first["code"], first["front"], first["model"]) == (200, "ok", "http", "litemedsam")
    assert first["stages_ms"]["encode"] > 0
    assert first["trace_id"] == TRACE.format(1).split("-")[1]
    assert bad["status"] in (400, 415, 422)
    assert over_grpc["status"] == "INVALID_ARGUMENT"


def test_a_trace_goes_through_every_part(run):
    def whole():
        mine = {}
        for service, span in run.collector.spans():
            if span.trace_id.hex() == TRACE.format(1).split("-")[1]:
                mine.setdefault((service, span.name), []).append(span)
        names = {name for _, name in mine}
        return mine if {"segment", "router", "pool", "engine"} <= names and under_engines(mine) else None

    def under_engines(mine):
        """Whether Triton's spans lie under an engine call. It may tell of one call of two: its exporter drops some."""
        engines = {span.span_id for span in mine.get(("medserve", "engine"), ())}
        return len(engines) > 1 and engines & parents(mine)

    def parents(mine):
        return {span.parent_span_id for (service, _), spans in mine.items() if service == "medserve-triton" for span in spans}

    mine = wait_until(whole, 60)
    ours = {name: spans for (service, name), spans in mine.items() if service == "medserve"}
    (front,), (router,), (pool,) = ours["segment"], ours["router"], ours["pool"]
    assert front.parent_span_id.hex() == "00f067aa0ba902b7"
    assert router.parent_span_id == front.span_id
    assert pool.parent_span_id == router.span_id
    engines = {attributes(span)["medserve.engine"]: span for span in ours["engine"]}
    assert set(engines) == {"litemedsam_image_encoder", "litemedsam_mask_decoder"}
    assert all(span.parent_span_id == pool.span_id for span in engines.values())
    assert attributes(front)["medserve.outcome"] == "ok"
