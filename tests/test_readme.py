import re
from pathlib import Path
from typing import Any

import pytest
import sklearn

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)
    assert len(blocks) >= 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "readme"}
    with sklearn.config_context():  # a block switches metadata routing on
        for number, block in enumerate(blocks):
            exec(compile(block, f"README.md, python block {number + 1}", "exec"), names)
    assert names["issues"]["is_label_issue"].any()
    assert not any(Path("checkpoints").glob("*"))


def test_the_two_commands_for_an_empty_machine_come_first() -> None:
    commands = re.findall(r"^```sh\n(.*?)\n```$", README.read_text(), re.M | re.S)
    assert commands[0] == "pip install . && noisyfit demo"
    assert commands[1] == 'pip install -e ".[test]" && pytest'
