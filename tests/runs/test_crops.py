"""One crop from corpus to camera: what a corpus holds decides whether a run may start and what its model is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssm.interface.crops import FaceCrop, crop_note, served_crop
from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import BASIC_EXPRESSIONS, Vocabulary
from ssm.saved.folder import read_config
from ssm_platform.records.manifest import Manifest, Record
from ssm_platform.records.record import Kind
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.crops import learned_crop
from ssm_platform.runs.preflight.crops import check_crops
from ssm_platform.runs.recipes import RECIPES, tiny
from ssm_platform.runs.splits import Split

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "before_rooms"
CUT = FaceCrop(source="detected", detector="yunet", margin=0.25)


def manifest(name: str, kind: Kind, *crops: str | None, root: Path = Path("/data")) -> Manifest:
    """Clips of one frame, one for each crop."""
    files = ("0.jpg",) if kind == "frames" else None
    records = [
        Record(f"{name}{number}", "here", kind, 0, 1, files=files, expression="happiness", crop=crop)
        for number, crop in enumerate(crops)
    ]
    return Manifest.build(root, name, "fe", Vocabulary(expressions=BASIC_EXPRESSIONS), records)


def refusals(*manifests: Manifest, **changes: object) -> list[str]:
    config = with_corpora(*manifests, **changes)
    return [str(one) for one in check_crops(config, {one.corpus: Split(one, one, one) for one in manifests})]


def with_corpora(*manifests: Manifest, **changes: object) -> RunConfig:
    first = tiny().data.corpora[0]
    corpora = tuple(
        first.model_copy(update={"name": one.corpus, "reader": None, "root": "/data", **changes}) for one in manifests
    )
    return tiny().model_copy(update={"data": tiny().data.model_copy(update={"corpora": corpora})})


def test_whole_frames_are_refused_with_the_command_that_cuts_them() -> None:
    for kind in ("frames", "video"):
        (line,) = refusals(manifest("bp4d", kind, None))
        assert "python jobs/ingest.py /data --corpus bp4d --out SHARDS" in line
        assert "--data.corpora.bp4d.manifest=SHARDS/manifest.parquet" in line
    assert refusals(manifest("bp4d", "video", None), crops="always") == []


@pytest.mark.parametrize("known", [("dfew", "frames"), ("fer2013", "pixels"), ("rafdb", "frames"), ("bp4d", "shard")])
def test_owners_crops_and_shards_of_before_are_trained_on_as_ever(known: tuple[str, Kind]) -> None:
    assert refusals(manifest(*known, None)) == []


def test_drawn_faces_are_as_close_as_a_crop(tmp_path: Path, tiny_corpora: Path) -> None:
    assert refusals(manifest("bp4d", "frames", None, root=tiny_corpora / "bp4d")) == []
    assert refusals(manifest("bp4d", "frames", None, root=tmp_path))


def test_a_model_reads_one_kind_of_crop_whoever_found_the_faces() -> None:
    by_haar = CUT.model_copy(update={"detector": "haar"})
    wide = CUT.model_copy(update={"margin": 0.5})
    level = CUT.model_copy(update={"alignment": "eyes"})
    assert refusals(manifest("one", "shard", CUT.text), manifest("two", "shard", by_haar.text)) == []
    assert refusals(manifest("one", "shard", CUT.text), manifest("dfew", "frames", None)) == []
    for other in (wide, level):
        (line,) = refusals(manifest("one", "shard", CUT.text), manifest("two", "shard", other.text))
        assert other.words in line


def test_a_model_is_served_what_most_of_its_clips_are() -> None:
    def learned(*manifests: Manifest) -> FaceCrop | None:
        return learned_crop(with_corpora(*manifests), manifests)

    owner = manifest("dfew", "frames", *[None] * 5)
    assert learned(owner) == FaceCrop(source="owner")
    assert learned(owner, manifest("one", "shard", CUT.text)) == CUT
    assert learned(manifest("one", "shard", None)) is None
    assert learned(owner, manifest("one", "shard", None)) is None
    assert served_crop(CUT) == CUT.model_copy(update={"detector": None})
    assert served_crop(None).alike(CUT)
    assert crop_note(CUT) == ""
    assert "owner's own crops" in crop_note(FaceCrop(source="owner"))
    assert "not recorded" in crop_note(None)


def test_fer_2013_is_known_by_its_squares_and_may_not_meet_wider_ones() -> None:
    kinds: tuple[Kind, ...] = ("frames", "pixels")
    for kind in kinds:
        fer = manifest("fer2013", kind, *[None] * 3)
        close = learned_crop(with_corpora(fer), [fer])
        assert close == FaceCrop(source="detected", detector="haar", margin=0.05)
        assert served_crop(close).margin == 0.05
        (line,) = refusals(fer, manifest("cremad", "shard", CUT.text))
        assert "margin 0.05" in line
        assert refusals(fer, manifest("cremad", "shard", CUT.model_copy(update={"margin": 0.05}).text)) == []


def test_crops_are_text_in_manifests_and_back() -> None:
    for crop in (CUT, FaceCrop(source="owner"), FaceCrop(source="frame"), served_crop(None)):
        assert FaceCrop.parse(crop.text) == crop
    for wrong in ("detected", "owner:1", "detected:yunet:wide:none", "frame:haar:0.2:none", "crop"):
        with pytest.raises(ValueError, match="no kind of face crop"):
            FaceCrop.parse(wrong)
    with pytest.raises(ValueError, match=r"bp4d: clip .bp4d0.: .somehow. is no kind of face crop"):
        manifest("bp4d", "video", "somehow")


def test_what_was_written_before_keeps_its_fingerprint(tmp_path: Path) -> None:
    saved = read_config(OLD / "model")
    assert saved.facts.preprocessing is not None
    assert saved.facts.preprocessing.crop is None
    assert saved.facts.preprocessing.fingerprint() == saved.fingerprints["preprocessing"]
    assert Preprocessing(crop=CUT).fingerprint() != Preprocessing().fingerprint()
    silent, told = manifest("bp4d", "video", None), manifest("bp4d", "video", CUT.text)
    assert silent.fingerprint != told.fingerprint
    for one in (silent, told):
        one.write(tmp_path / "m.parquet")
        back = Manifest.read(tmp_path / "m.parquet")
        assert (back.fingerprint, back[0].crop) == (one.fingerprint, one[0].crop)
    old = Manifest.read(OLD / "shards" / "bp4d" / "manifest.parquet")
    assert old.column("crop").null_count == len(old)


def test_recipes_that_anybody_can_run_are_not_refused(tmp_path: Path) -> None:
    """Drawn corpora are known by the marker in their folder, FER-2013 by its owner's crops."""
    (tmp_path / "synthetic.json").write_text("{}")
    for name in ("quickstart", "tiny", "real_faces"):
        config = RECIPES[name]()
        splits = {}
        for corpus in config.data.corpora:
            kind: Kind = "pixels" if corpus.name == "fer2013" else "frames"
            drawn = manifest(corpus.name, kind, None, root=tmp_path if corpus.synthetic else Path("/data"))
            splits[corpus.name] = Split(drawn, drawn, drawn)
        assert check_crops(config, splits) == [], name
