"""Which line has the names, and what is no row."""

from __future__ import annotations

from typing import Any

import pytest

from sluice.loading.errors import AmbiguousFile
from tests.unit.sluice.loading.formats.delimited.reading import reading, refusal, table


@pytest.mark.parametrize(
    "content",
    [
        *("2,Bob\n", "2,Bob", "1,Ann\n2,Bob\n", "Ann,2024-01-01\nBob,2024-01-02\n", "7\n", "1.5;2\n1.5;2\n"),
        *(
            "Ann,Oslo\n",
            "Ann,Oslo\nBob,Rome\n",
            "ann;oslo\nbob;new york\ncid;rome\n",
            "ANN\nBOB\n",
            "red\ngreen\nblue\n",
        ),
        *(
            "张伟,北京\n王芳,上海\n",
            "north_sea,big_ship\nred_sea,old_boat\n",
            "Ann Lee|Oslo\n\nBob Ray|Rome\n",
            "ann,\nbob,\n",
        ),
        *(
            "New York,USA\nParis,France\nRome,Italy\n",
            "Hannover 96\nBayern\nDresden\n",
            "Anna,Berlin\nbob,paris\n",
            "error,disk full\nwarning,cpu hot\ninfo,all good\n",
            "USA,Compact\nKorea,Small\n",
            "when do you sleep at night\nNever\n",
        ),
    ],
)
def test_a_first_line_that_looks_like_a_row_is_refused(written: Any, content: str) -> None:
    message = refusal(written(content), kind=AmbiguousFile)
    assert "line 1 can be the names of the columns or a row" in message
    assert "`dialect: {header: false}`" in message


@pytest.mark.parametrize(
    "header", ["id,name", "country,2019,2020", "id,1,2,3", ",a,b", "2020,2021", "total 5,x", "a,a", "id,2024-01-01"]
)
def test_other_first_lines_are_headers(written: Any, header: str) -> None:
    width = header.count(",") + 1
    content = header + "\n" + "\n".join(",".join(str(9 + row + one) for one in range(width)) for row in range(3))
    assert table(written(content))[0] == header.split(",")


@pytest.mark.parametrize(
    "rows",
    [
        ["Ann,Oslo", "Bob,Rome", "Cid,Oslo"],
        ["ann@example.org,x", "bob@example.org,y", "cid@example.org,z"],
        ["Ann,DE-0042", "Bob,FR-0001", "Cid,IT-7000"],
        ["Ann,https://a.example/x", "Bob,https://a.example/y", "Cid,ftp://a.example/"],
    ],
)
def test_a_first_line_of_text_that_is_made_as_the_values_below_is_refused(written: Any, rows: list[str]) -> None:
    message = refusal(written("\n".join(rows)), kind=AmbiguousFile)
    assert "line 1 can be the names of the columns or a row" in message
    names = "who,what\n"
    assert table(written(names + "\n".join(rows)))[0] == ["who", "what"]
    assert table(written("\n".join(rows)), {"dialect": {"header": True}})[0] == rows[0].split(",")


@pytest.mark.parametrize(
    "rows",
    [
        *(
            "q1,x1\nq1 sum,7\n",
            "name,city\nAnn,\n",
            "name,city\nann,oslo\n",
            "Lastname,Town\nLee,Oslo\n",
            "color\nred\nblue\n",
        ),
        *(
            "kraj,stolica\nPolska,Warszawa\n",
            "Kundenname,Ort\nMeier,Bonn\n",
            "naam,plaats\nann,delft\n",
            "VILLE,RUE\nNICE,X\n",
        ),
        *(
            "姓名,所在城市\n张伟,北京\n",
            "orderTaker,x\nann,y\n",
            "order_id,ref\nab,cd\n",
            "x,remark\n,\n",
            "who,price\n",
        ),
    ],
)
def test_a_first_line_of_words_is_a_header_where_something_tells_it_from_the_rows(written: Any, rows: str) -> None:
    found = reading(written(rows))
    assert found.columns == rows.partition("\n")[0].split(",")
    assert "if it is a row, say `header: false`" in found.evidence["header"]


@pytest.mark.parametrize("rule", ["|----|---|", "|:---|--:|", "----|---|", "====|"])
def test_a_rule_below_the_names_is_no_row(written: Any, rule: str) -> None:
    message = refusal(written(f"| id | n |\n{rule}\n| 1 | a |\n| 2 | b |\n"), kind=AmbiguousFile)
    assert "a rule and no row" in message or "2 fields" in message


def test_a_first_row_that_is_not_seen_to_its_end_says_nothing_of_the_names(written: Any) -> None:
    assert table(written('x\n"' + "y" * 300_000 + '"\n')) == (["x"], [("y" * 300_000,)])
    assert table(written("x\n" + "y" * 300_000 + "\n"))[0] == ["x"]


def test_blank_lines_below_a_single_name_are_no_rows(written: Any) -> None:
    assert table(written("id\n\n\n")) == (["id"], [])


def test_names_that_stand_there_again_are_two_files_put_together(written: Any) -> None:
    message = refusal(written("name,n\nAnn,1\nname,n\nBob,2\n"), kind=AmbiguousFile)
    assert "line 1 stands there again further down" in message


def test_a_file_without_header_is_read_by_the_names_of_its_contract(written: Any) -> None:
    fields = {"schema": {"fields": [{"name": "id"}, {"name": "name"}]}}
    path = written("1,Ann\n2,Bob\n")
    assert table(path, {"dialect": {"header": False}, **fields}) == (["id", "name"], [("1", "Ann"), ("2", "Bob")])
    assert table(path, {"dialect": {"header": False}})[0] == ["column_1", "column_2"]
    assert table(path, {"dialect": {"header": True}}) == (["1", "Ann"], [("2", "Bob")])
    assert "has 2 fields, and the contract names 1" in refusal(
        path, {"dialect": {"header": False, "delimiter": ","}, "schema": {"fields": [{"name": "id"}]}}
    )


def test_lines_before_the_header_are_left_out_where_the_contract_says_so(written: Any) -> None:
    path = written('Report 2024\n\n"made ""by"" Ann"\nid,name\n1,Ann\n')
    message = refusal(path, kind=AmbiguousFile)
    assert "If line 4 has the names, write `dialect: {headerRows: [4]}`" in message
    assert table(path, {"dialect": {"headerRows": [4]}}) == (["id", "name"], [("1", "Ann")])


def test_comments_are_left_out_where_the_contract_says_so(written: Any) -> None:
    path = written('# made, today\nid,name\n1,Ann\n# x\n2,"a\n# b"\n')
    assert table(path, {"dialect": {"commentChar": "#"}}) == (["id", "name"], [("1", "Ann"), ("2", "a\n# b")])


@pytest.mark.parametrize("first", [",,", "Report of May,,", " ,  ,"])
def test_a_first_line_that_names_less_than_half_of_the_columns_is_ambiguous(written: Any, first: str) -> None:
    path = written(f"{first}\nid,name,price\n1,a,2.5\n2,b,3.5\n")
    message = refusal(path, kind=AmbiguousFile)
    assert "line 1 names" in message
    assert "headerRows: [2]" in message
    assert table(path, {"dialect": {"headerRows": [2]}}) == (
        ["id", "name", "price"],
        [("1", "a", "2.5"), ("2", "b", "3.5")],
    )
    assert len(table(path, {"dialect": {"headerRows": [1]}})[1]) == 3


def test_a_column_without_a_name_is_taken_where_most_have_one(written: Any) -> None:
    assert table(written("id,name,\n1,a,x\n2,b,y\n"))[0] == ["id", "name", ""]
