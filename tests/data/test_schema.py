import pytest

from tests.data.tables import SCHEMA
from wmjax.core.errors import UserError
from wmjax.core.provenance import fingerprint
from wmjax.data.schema import Column, PanelSchema, near, read_schema

ODD = {
    "unit": "id",
    "columns": {
        "price.heinz": {"role": "action", "kind": "currency"},
        'say "hi"\\ \x7f é': {"role": "covariate", "kind": "count", "future": "known", "source": "tab\there"},
        "bought": {"role": "outcome", "kind": "binary", "source": "choice", "equals": "heinz41"},
        "one": {"role": "outcome", "kind": "binary", "source": "n", "equals": 1},
        "half": {"role": "outcome", "kind": "binary", "source": "n", "equals": 0.5},
        "yes": {"role": "outcome", "kind": "binary", "source": "b", "equals": True},
    },
}


DRAWN = {
    "unit": "id",
    "columns": {
        "p": {"role": "covariate", "kind": "continuous"},
        "push": {"role": "action", "kind": "binary", "randomised": True, "propensity": 0.25, "source": "sent"},
        "mail": {"role": "action", "kind": "binary", "randomised": True, "propensity": "p"},
        "coin": {"role": "action", "kind": "binary", "randomised": True},
        "sale": {"role": "action", "kind": "binary"},
        "y": {"role": "outcome", "kind": "count"},
    },
}


@pytest.mark.parametrize("spec", [SCHEMA, ODD, DRAWN])
def test_toml_round_trip(tmp_path, spec):
    schema = read_schema(spec)
    path = tmp_path / "x.toml"
    path.write_text(schema.to_toml(), encoding="utf-8")
    again = read_schema(path)
    assert again == schema
    assert [type(c.equals) for c in again.columns] == [type(c.equals) for c in schema.columns]
    assert read_schema(schema.to_dict()) == schema
    assert read_schema(schema) is schema


def test_what_was_drawn_by_chance_is_kept_and_counts():
    """Through the long table that a run keeps, and in the fingerprint."""
    schema = read_schema(DRAWN)
    assert schema.column("push").propensity == 0.25
    plain = schema.plain()
    assert [(c.randomised, c.propensity) for c in plain.columns] == [
        (c.randomised, c.propensity) for c in schema.columns
    ]
    assert plain.column("push").table_name == "push"
    other = {**DRAWN, "columns": {**DRAWN["columns"], "coin": {"role": "action", "kind": "binary"}}}
    assert fingerprint(schema) != fingerprint(read_schema(other))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sale": {"role": "action", "kind": "count", "randomised": True}}, "for binary actions only, not for a count"),
        ({"p": {"role": "covariate", "kind": "binary", "randomised": True}}, "not for a binary covariate"),
        ({"push": {"role": "action", "kind": "binary", "propensity": 0.2}}, "say randomised = true"),
        ({"sale": {"role": "action", "kind": "binary", "randomised": "yes"}}, "must be true or false"),
        *(
            ({"push": {"role": "action", "kind": "binary", "randomised": True, "propensity": p}}, words)
            for p, words in (
                (0.0, "propensity is 0.0, must lie in (0, 1)"),
                (1, "propensity is 1, must lie in (0, 1)"),
                (float("nan"), "propensity is nan"),
                (True, "must be a number or a covariate's name"),
                ("q", "propensity names 'q', which is no covariate"),
                ("y", "propensity names 'y', which is no covariate"),
            )
        ),
    ],
)
def test_a_draw_that_contradicts_itself_is_told(changes, words):
    with pytest.raises(UserError) as error:
        read_schema({**DRAWN, "columns": {**DRAWN["columns"], **changes}})
    assert words in str(error.value)


def test_roles_keep_the_order_of_the_schema():
    schema = read_schema(SCHEMA)
    assert schema.names("static") == ("segment", "income", "loyal")
    assert schema.names("action") == ("push", "spend")
    assert schema.column("push") == Column(name="push", role="action", kind="binary")
    assert schema.table_names[:3] == ("household", "day", "segment")


def test_a_source_used_twice_is_read_once():
    assert read_schema(ODD).table_names == ("id", "price.heinz", "tab\there", "choice", "n", "b")


def test_unquoted_dots_name_one_column(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(
        'unit = "id"\n[columns]\nprice.a.b = { role = "action", kind = "currency" }\n'
        'y = { role = "outcome", kind = "binary" }\n'
    )
    assert read_schema(path).names("action") == ("price.a.b",)


def test_plain_describes_the_long_table():
    plain = read_schema(ODD).plain()
    assert (plain.unit, plain.time) == ("id", "time")
    assert all(c.source is None and c.equals is None for c in plain.columns)
    assert plain.column('say "hi"\\ \x7f é').future == "known"


def column(**changes):
    return {"role": "outcome", "kind": "binary"} | changes


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"y": column(rolle="x")}, ["'y'", "'rolle'", "'role'"]),
        ({"y": {"kind": "binary"}}, ["'y'", "no role"]),
        ({"y": {"role": "outcome"}}, ["'y'", "no kind"]),
        ({"y": column(kind="bool")}, ["'y'", "'bool'", "binary"]),
        ({"y": column(role="target")}, ["'y'", "'target'", "outcome"]),
        ({"y": column(future="known")}, ["'y'", "covariates only"]),
        ({"y": column(kind="count", equals=1)}, ["'y'", "equals", "'count'"]),
        ({"y": column(kind="categorical")}, ["'y'", "cannot be categorical", "equals"]),
        ({"y": column(), "a": {"role": "action", "kind": "categorical"}}, ["'a'", "cannot be categorical"]),
        ({"y": column(role="covariate")}, ["no outcome"]),
        ({"id": column()}, ["'id'", "already the unit"]),
        ({"y": 3}, ["'y'", "3"]),
        ({"": column()}, ["needs a name"]),
        ({}, ["[columns]"]),
    ],
)
def test_a_bad_column_is_told_by_name(columns, words):
    with pytest.raises(UserError) as error:
        read_schema({"unit": "id", "columns": columns})
    assert all(w in str(error.value) for w in words), error.value


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"unt": "id"}, ["'unt'", "'unit'"]),
        ({"unit": 3}, ["unit", "3"]),
        ({"unit": "id", "time": "id"}, ["same column", "'id'"]),
        ({"unit": "id", "frequency": "weekly"}, ["weekly", "time column"]),
        ({"unit": "id", "time": "t", "frequency": "hourly"}, ["'hourly'", "weekly"]),
    ],
)
def test_a_bad_head_is_told(head, words):
    with pytest.raises(UserError) as error:
        read_schema({**head, "columns": {"y": column()}})
    assert all(w in str(error.value) for w in words), error.value


def test_repeated_names_are_told():
    y = Column(name="y", role="outcome", kind="binary")
    with pytest.raises(UserError, match=r"repeat.*'y'"):
        PanelSchema(unit="id", columns=(y, y))


def test_a_missing_or_broken_file_is_told(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_schema(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("unit = ")
    with pytest.raises(UserError, match="not TOML"):
        read_schema(tmp_path / "broken.toml")


def test_near_names_close_ones_else_all():
    assert near("prise", ["price", "push"]) == "did you mean 'price'?"
    assert near("prise", ["price", "push", "price"]) == "did you mean 'price'?"
    assert near("zzz", ["price", 4]) == "there are 'price', '4'"
    assert near("zzz", range(25)).endswith("and 5 more")


def test_an_unknown_column_is_told_with_near_names():
    with pytest.raises(UserError, match=r"'pusch'.*did you mean 'push'"):
        read_schema(SCHEMA).column("pusch")
