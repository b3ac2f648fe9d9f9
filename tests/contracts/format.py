"""The contract of a file format: inherit `FormatContract`, give the format and write an example.

class TestRes(FormatContract):
    format = RES

    def write(self, folder): ...
"""

from pathlib import Path

import pytest

from crystalgfn.crystallography.atoms import Record, SkippedRecord, atoms_fault
from crystalgfn.data import reader
from crystalgfn.data.formats import base
from crystalgfn.errors import DataError


class FormatContract:
    """What every format does."""

    format: base.Format

    def write(self, folder: Path) -> Path:
        """A file with NaCl, and nothing else."""
        raise NotImplementedError

    @pytest.fixture
    def example(self, tmp_path):
        return self.write(tmp_path)

    @pytest.fixture
    def known(self, monkeypatch):
        """The format among those that the reader knows, as an entry point would put it."""
        found = {**base.formats(), **dict.fromkeys(self.format.suffixes, self.format)}
        monkeypatch.setattr(base, "formats", lambda: found)
        monkeypatch.setattr(reader, "formats", lambda: found)

    def test_it_keeps_the_contract(self, example):
        (one,) = base.check_format(self.format, example)
        assert isinstance(one, Record) and one.structure.composition.reduced_formula == "NaCl"
        assert atoms_fault(one.known_atoms) is None

    def test_the_reader_takes_it(self, example, known):
        (one,) = reader.records(example)
        assert one.structure.composition.reduced_formula == "NaCl"
        assert [two.where for two in reader.records([example])] == [one.where]

    def test_half_of_the_file_is_no_crystal_of_another_formula(self, example, known):
        content = example.read_bytes()
        for share in (0.3, 0.6, 0.9):
            example.write_bytes(content[: int(share * len(content))])
            try:
                found = list(reader.records(example))
            except DataError:
                continue
            for one in found:
                assert isinstance(one, SkippedRecord) or one.structure.composition.reduced_formula == "NaCl"

    def test_a_file_that_is_not_there(self, tmp_path, known):
        with pytest.raises(DataError, match="there is no file or folder"):
            list(reader.records(tmp_path / f"nothing{self.format.suffixes[0]}"))
