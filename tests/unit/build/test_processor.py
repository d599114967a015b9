import pytest

from serving.build import processor


@pytest.mark.parametrize(
    ("flags", "able"),
    [
        ("fpu avx2", set()),
        ("avx2 avx512_bf16 avx512_vnni", {"bf16", "vnni"}),
        ("amx_bf16 avx2", {"bf16"}),
        ("avx2 avx_vnni", {"vnni"}),
        ("xavx512_bf16x", set()),
    ],
)
def test_what_a_processor_computes_fast_is_told_by_its_flags(tmp_path, flags, able):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: avx512_bf16 the Great\nflags\t\t: {flags}\n\nflags\t\t: {flags}\n")
    assert processor.able(file) == able


@pytest.mark.parametrize("text", ["", "processor\t: 0\nFeatures\t: fp asimd\n"])
def test_where_no_flags_are_listed_openvino_is_asked(tmp_path, text):
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert processor.able(file) <= {"bf16"}
    assert processor.able(tmp_path / "none") <= {"bf16"}
