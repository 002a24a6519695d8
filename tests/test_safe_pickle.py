import copyreg
import os
import pickle
import pickletools
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from segmentation.data.safe_pickle import NAMING, PLAIN, UnsafePickle, load

REFS = [
    {
        "ref_id": 7,
        "split": "val",
        "sentences": [{"sent": "the caf\xe9 on the left", "tokens": ["caf\xe9"]}],
        "area": 1.5,
    },
    {"ref_id": 2**40, "split": "testA", "sentences": [], "flags": (True, False, None, -1)},
]
PYTHON_2 = b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9'\np3\nsS'raw'\np4\nVna\\u00efve\np5\nsS'id'\np6\nL12L\nsa."


class Command:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def written(folder: Path, content: bytes) -> Path:
    path = folder / "refs(unc).p"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol_comes_back(tmp_path, protocol):
    assert load(written(tmp_path, pickle.dumps(REFS, protocol))) == REFS


def test_python_2_text_is_latin_1_whatever_its_bytes(tmp_path):
    assert load(written(tmp_path, PYTHON_2)) == [{"sent": "caf\xe9", "raw": "na\xefve", "id": 12}]
    every_byte = b"T" + struct.pack("<i", 256) + bytes(range(256)) + b"."
    assert load(written(tmp_path, every_byte)) == bytes(range(256)).decode("latin1")


def test_shared_and_self_containing_lists_keep_their_shape(tmp_path):
    ring: list = []
    ring.append(ring)
    read = load(written(tmp_path, pickle.dumps([ring, ring], 2)))
    assert read[0] is read[1] is read[0][0]


FORBIDDEN = {
    "posix.system": lambda mark: Command(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Command(eval, f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: Command(exec, f"open({str(mark)!r}, 'w')"),
    "builtins.getattr": lambda mark: Command(getattr, [], "append"),
    "numpy": lambda mark: np.array([{"ref_id": 1}], dtype=object),
    "numpy._core.multiarray.scalar": lambda mark: np.int64(3),
    "collections.OrderedDict": lambda mark: OrderedDict(ref_id=1),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_class_or_function_is_named_and_not_run(tmp_path, name, protocol):
    mark = tmp_path / "mark"
    content = pickle.dumps([{"ref_id": FORBIDDEN[name](mark)}], protocol)
    with pytest.raises(UnsafePickle) as refused:
        load(written(tmp_path, content))
    said = str(refused.value).replace(
        "__builtin__", "builtins"
    )  # protocols below 3 write Python 2's name of the module
    assert name in said and str(tmp_path / "refs(unc).p") in said and "Nothing was run" in said
    assert not mark.exists()


def test_the_classes_of_inst_and_obj_are_refused_too(tmp_path):
    with pytest.raises(UnsafePickle, match=r"posix\.system"):
        load(written(tmp_path, b"(S'true'\niposix\nsystem\n."))
    with pytest.raises(UnsafePickle, match=r"posix\.system"):
        load(written(tmp_path, b"(cposix\nsystem\nS'true'\no."))


def test_an_extension_code_is_refused_even_when_its_object_is_cached(tmp_path):
    copyreg.add_extension("posix", "system", 0xF1)
    try:
        by_code = {
            1: b"\x82\xf1.",
            2: b"\x83\xf1\x00.",
            4: b"\x84\xf1\x00\x00\x00.",
        }
        assert pickle.loads(by_code[1]) is os.system  # and is cached from here on
        for size, content in by_code.items():
            with pytest.raises(UnsafePickle, match=f"EXT{size}"):
                load(written(tmp_path, content))
    finally:
        copyreg.remove_extension("posix", "system", 0xF1)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"Pname\n.", "PERSID"),
        (b"K\x01Q.", "BINPERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x05\x98.", "READONLY_BUFFER"),
        (b"}}b.", "BUILD"),
        (b"})R.", "REDUCE"),
        (b"})\x81.", "NEWOBJ"),
        (b"})}\x92.", "NEWOBJ_EX"),
        (pickle.dumps(bytearray(b"x"), 5), "BYTEARRAY8"),
        (pickle.dumps({1, 2}, 4), "EMPTY_SET"),
    ],
)
def test_an_instruction_that_is_more_than_plain_data_is_named(tmp_path, content, name):
    with pytest.raises(UnsafePickle, match=rf"instruction {name} is not allowed"):
        load(written(tmp_path, content))


def test_nothing_that_can_call_or_fetch_is_among_the_allowed():
    able = {"REDUCE", "BUILD", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4"}
    assert not able & (PLAIN | NAMING)
    assert {op.name for op in pickletools.opcodes} >= PLAIN | NAMING


TEN_GB = 10 * 2**30
CLAIMS = {
    "BINSTRING": b"T" + struct.pack("<i", 2**31 - 1),
    "BINUNICODE": b"X" + struct.pack("<I", 2**32 - 1),
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", TEN_GB),
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", TEN_GB),
    "BINBYTES8": b"\x8e" + struct.pack("<Q", TEN_GB),
    "FRAME": b"\x80\x04\x95" + struct.pack("<Q", TEN_GB),
    "LONG4": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "LONG_BINPUT": b"K\x01r" + struct.pack("<I", 2**32 - 1),
    "PUT": b"K\x01p99999999999\n",
    "LONG": b"L" + b"9" * 100_000 + b"L\n",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_of_gigabytes_allocates_nothing(tmp_path, name):
    path = written(tmp_path, CLAIMS[name])
    tracemalloc.start()
    try:
        with pytest.raises(UnsafePickle, match=r"not a complete pickle|not allowed"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_every_cut_of_a_good_pickle_is_an_error_that_names_the_file(tmp_path):
    for protocol in (0, 2, 4):
        content = pickle.dumps(REFS, protocol)
        for end in range(len(content)):
            with pytest.raises(UnsafePickle, match=r"refs\(unc\)\.p"):
                load(written(tmp_path, content[:end]))


def test_random_bytes_load_as_plain_data_or_not_at_all(tmp_path):
    rng = np.random.default_rng(0)
    content = pickle.dumps(REFS, 2)
    for _ in range(500):
        damaged = bytearray(content)
        for position in rng.integers(2, len(content), 3):
            damaged[position] = rng.integers(256)
        try:
            read = load(written(tmp_path, bytes(damaged)))
        except UnsafePickle:
            continue
        assert type(read) in (list, dict, tuple, str, int, float, bool, type(None))


def test_a_file_that_is_not_there_is_the_systems_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "refs(unc).p")


@pytest.mark.realdata
def test_the_official_files_need_no_class(real_data):
    refs = load(real_data / "refer_mini/refcoco/refs(unc).p")
    assert len(refs) == 67 and sum(len(ref["sentences"]) for ref in refs) == 190
