"""What the command line reads, without running it."""

import re

import pytest

from wmjax import cli


@pytest.mark.parametrize("kind", cli.WORLDS)
def test_seeds_and_members_are_one_option(kind, capsys):
    words = [f"fit {kind}", "--panel", "p.csv", "--schema", "s.toml", "--out", "run"]
    for option in ("--seeds", "--members"):
        call = cli._parse([*words, option, "16", "--seed", "7"])
        assert (call.keywords["cfg"].members, call.keywords["seed"]) == (16, 7)
    with pytest.raises(SystemExit):
        cli.main(["fit", kind, "--help"])
    told = " ".join(re.sub(r"[│\n]", " ", capsys.readouterr().out).split())
    assert "`--seeds` is the same option" in told


@pytest.mark.parametrize("words", [["fit"], ["fit", "--help"], ["fit", "medya", "--panel", "p.csv"]])
def test_what_is_fitted_is_asked_for(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "say what to fit: wmjax fit consumer, wmjax fit graph, wmjax fit media" in told
