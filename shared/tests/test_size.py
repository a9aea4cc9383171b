"""A line of code, and a name, are the same thing in every lab."""

from pathlib import Path

import pytest

from shared.size import Size, data_lines, size


def test_lines_are_neither_comments_nor_docstrings_nor_brackets(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""Doc\nstring."""\n\n# comment\nX = [\n    1,\n]\n\n\ndef f() -> None:\n    "doc"\n    g(X)\n')
    assert size([path]).lines == len(["X = [", "1,", "def f", "g(X)"])


def test_names_are_public_and_those_of_several_modules_add_up(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class Seen:\n    async def seen(self): ...\n    def _unseen(self): ...\n")
    (tmp_path / "b.py").write_text("def seen(): ...\n")
    assert size([tmp_path / "a.py", tmp_path / "b.py"]) == Size(4, 3)


def test_what_cannot_be_read_is_not_counted_as_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        size([tmp_path / "gone.py"])


def test_data_have_lines_where_something_stands(tmp_path: Path) -> None:
    (tmp_path / "order.bpmn").write_text("<a>\n\n  \n</a>\n")
    assert data_lines([tmp_path / "order.bpmn"]) == 2
