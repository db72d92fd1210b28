"""The labelling page over HTTP: what it shows, and what it refuses."""

import logging
import re
from html import unescape

import polars as pl
import pytest
from starlette.testclient import TestClient

from rlhf.feedback import annotators, batches, collected
from rlhf.feedback.web import security
from rlhf.feedback.web.app import create_app
from rlhf.feedback.web.text import plain

SECRET = "a secret of the tests, long enough"


@pytest.fixture
def url(tmp_path):
    # The pages know nothing of the database behind the store.
    return f"sqlite:///{tmp_path / 'feedback.db'}"


@pytest.fixture
def closed():
    return []


@pytest.fixture
def app(feedback, closed):
    return create_app(feedback, SECRET, lambda: closed.append(True))


def browser(app, base_url="http://testserver"):
    return TestClient(app, base_url=base_url, follow_redirects=False)


def csrf(page):
    return re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)[1]


def sign_in(app, feedback, name="ann", role="rater", **more):
    client = browser(app, **more)
    token = annotators.add(feedback, name, role)
    entered = client.post("/sign-in", data={"csrf": csrf(client.get("/sign-in")), "token": token})
    assert entered.status_code == 303, entered.text
    return client


def field(page, name):
    return re.search(rf'name="{name}" value="(\d+)"', page.text)[1]


def submit(client, page, ranks="1,2,3", batch=1, **more):
    data = {
        "csrf": csrf(page), "assignment": field(page, "assignment"), "attempt": field(page, "attempt"),
        "ranks": ranks, "seconds": "1.5", **more,
    }  # fmt: skip
    return client.post(f"/batch/{batch}/answer", data=data, headers={"HX-Request": "true"})


def texts(page):
    return [unescape(text) for text in re.findall(r'aria-label="Response \d+">(.*?)</div>', page.text, re.S)]


def test_a_rater_signs_in_ranks_and_the_answer_is_kept_in_the_sampled_order(app, feedback, make_batch):
    make_batch(2)
    client = sign_in(app, feedback)
    assert "batch" in client.get("/").text
    page = client.get("/batch/1")
    shown = texts(page)
    after = submit(client, page, "2,1,1", **{"flag-0": ["wrong", "too verbose"]})
    assert after.status_code == 200
    assert "1 answered by you" in after.text
    (answer,) = collected.standing(feedback, 1)
    ranks = dict(zip(shown, (2, 1, 1), strict=True))
    assert answer.ranks == [ranks[f"Response 0.{place}"] for place in range(3)]
    assert answer.flags[int(shown[0][-1])] == ["wrong", "too verbose"]
    assert answer.order == [int(text[-1]) for text in shown]


def test_raters_see_different_orders_and_no_hint_of_a_model(app, feedback, make_batch):
    make_batch(1, size=7, overlap=2)
    orders = [texts(sign_in(app, feedback, name).get("/batch/1")) for name in ("ann", "bob")]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize("path", ["/", "/batch/1", "/admin", "/admin/batch/1", "/admin/batch/1/export/csv"])
def test_nobody_sees_anything_without_signing_in(app, make_batch, path):
    make_batch()
    found = browser(app).get(path)
    assert (found.status_code, found.headers["location"]) == (303, "/sign-in")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin"), ("GET", "/admin/batch/1"), ("GET", "/admin/batch/1/export/csv"),
        ("POST", "/admin/batch/1/close"), ("POST", "/admin/batch/1/rater/1/exclude"),
    ],
)  # fmt: skip
def test_admin_pages_are_for_admins(app, feedback, make_batch, method, path):
    make_batch()
    client = sign_in(app, feedback)
    data = {"csrf": csrf(client.get("/"))} if method == "POST" else None
    assert client.request(method, path, data=data).status_code == 403
    assert batches.find(feedback, "1").closed_at is None


def test_an_id_of_somebody_else_opens_nothing(app, feedback, make_batch):
    make_batch(3)
    ann, bob = sign_in(app, feedback, "ann"), sign_in(app, feedback, "bob")
    hers, his = ann.get("/batch/1"), bob.get("/batch/1")
    assert texts(hers) != texts(his)
    data = {"csrf": csrf(his), "assignment": field(hers, "assignment"), "attempt": "0", "ranks": "1,2,3"}
    refused = bob.post("/batch/1/answer", data=data, headers={"HX-Request": "true"})
    assert (refused.status_code, "not yours" in refused.text) == (409, True)
    assert texts(hers)[0] not in refused.text
    assert collected.standing(feedback, 1) == []


@pytest.mark.parametrize("token", ["", "0" * 64, "ö"])
@pytest.mark.parametrize("path", ["/batch/1/answer", "/batch/1/undo", "/sign-out", "/sign-in"])
def test_a_write_without_our_token_is_refused(app, feedback, make_batch, path, token):
    make_batch()
    client = sign_in(app, feedback)
    page = client.get("/batch/1")
    data = {"csrf": token, "assignment": field(page, "assignment"), "attempt": "0", "ranks": "1,2,3"}
    assert client.post(path, data=data).status_code == 403
    assert collected.standing(feedback, 1) == []


def test_the_token_of_another_session_is_refused(app, feedback, make_batch):
    make_batch()
    ann, bob = sign_in(app, feedback, "ann"), sign_in(app, feedback, "bob")
    stolen = csrf(ann.get("/batch/1"))
    assert bob.post("/batch/1/undo", data={"csrf": stolen}).status_code == 403


def test_the_same_form_twice_gives_one_ranking(app, feedback, make_batch):
    make_batch(2)
    client = sign_in(app, feedback)
    page = client.get("/batch/1")
    submit(client, page)
    assert "first answer stands" in submit(client, page, "3,2,1").text
    assert [answer.ranks is not None for answer in collected.standing(feedback, 1)] == [True]


def test_skip_undo_and_the_end_of_a_batch(app, feedback, make_batch, closed):
    make_batch(2, quota=0.5)
    client = sign_in(app, feedback)
    page = submit(client, client.get("/batch/1"), skip="cannot judge")
    assert collected.standing(feedback, 1)[0].skip_reason == "cannot judge"
    page = client.post("/batch/1/undo", data={"csrf": csrf(page)}, headers={"HX-Request": "true"})
    assert "taken back" in page.text
    assert collected.standing(feedback, 1) == []
    page = submit(client, page)
    assert "This batch is complete" in page.text
    assert closed == [True]


@pytest.mark.parametrize("ranks", ["1,2", "x,1,2", "1,,", "1,3,4", "9" * 5000, "1,2,-1"])
def test_ranks_that_no_page_of_ours_sends_are_refused(app, feedback, make_batch, ranks):
    make_batch()
    client = sign_in(app, feedback)
    assert submit(client, client.get("/batch/1"), ranks).status_code == 409
    assert collected.standing(feedback, 1) == []


def test_a_form_that_is_too_large_or_of_another_kind_is_refused(app, feedback, make_batch):
    make_batch()
    client = sign_in(app, feedback)
    page = client.get("/batch/1")
    assert submit(client, page, "1" * 70_000).status_code == 413
    assert client.post("/batch/1/answer", json={"csrf": csrf(page)}).status_code == 415


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> [x](javascript:alert(1)) <a href='javascript:alert(1)'>x</a>"
    " \u202edesrever\u202c \u200bhidden\ufeff {{ 7*7 }} \0 &lt;b&gt;"
)


def test_hostile_text_is_shown_as_text(app, feedback, make_candidates):
    frame = make_candidates(1, 2).with_columns(pl.Series("responses", [[HOSTILE, "x" * 1_000_000]]))
    batches.publish(feedback, "k", frame, batches.Plan(name="<b>n</b>", guidelines="<i>g</i>"))
    client = sign_in(app, feedback, "<u>ann</u>")
    page = client.get("/batch/1")
    assert plain(HOSTILE) in texts(page)
    for markup in ("<script>alert", "<img", "<a href='java", "<b>", "<i>", "<u>"):
        assert markup not in page.text
    assert not set("\u202e\u202c\u200b\ufeff\0") & set(page.text)
    assert "[U+202E]desrever" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "x" * 1_000_000 in page.text


def test_no_page_has_inline_script_or_style_and_all_carry_the_headers(app, feedback, make_batch):
    make_batch()
    client = sign_in(app, feedback, role="admin")
    submit(client, client.get("/batch/1"))
    pages = [
        "/",
        "/batch/1",
        "/admin",
        "/admin/batch/1",
        "/sign-in",
        "/nowhere",
        "/static/label.js",
        "/batch/99",
    ]
    for path in pages:
        found = client.get(path)
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert found.headers["x-frame-options"] == "DENY"
        assert found.headers["x-content-type-options"] == "nosniff"
        if "javascript" not in found.headers["content-type"]:
            assert not re.search(
                r"<script(?! src=\"/static/)|<style|\sstyle=|\son[a-z]+=|javascript:", found.text
            )
            assert found.headers["cache-control"] == "no-store"


def test_the_first_page_weighs_less_than_100_kilobytes(app, feedback, make_batch):
    make_batch(size=9)
    client = sign_in(app, feedback)
    page = client.get("/batch/1")
    assets = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(assets) == 4
    assert len(page.content) + sum(len(client.get(asset).content) for asset in assets) < 100_000


def test_cookies_are_out_of_reach_of_scripts_and_other_sites_and_secure_behind_tls(app, feedback):
    for base, secure in (("http://testserver", False), ("https://testserver", True)):
        client = browser(app, base)
        cookie = client.get("/sign-in").headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert ("secure" in cookie) is secure


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1] + "x", lambda c: "1" + c, lambda c: "a.b", lambda c: "1.x.y.9.z"]
)
def test_a_cookie_that_we_did_not_sign_is_nobody_s(app, feedback, change):
    client = sign_in(app, feedback)
    cookie = client.cookies[security.COOKIE]
    client.cookies.clear()
    client.cookies.set(security.COOKIE, change(cookie))
    assert client.get("/").status_code == 303


def test_a_session_ends_with_its_time_its_token_and_its_secret(app, feedback, monkeypatch):
    client = sign_in(app, feedback)
    assert client.get("/").status_code == 200
    assert security.Sessions("another secret").read(client.cookies[security.COOKIE]) is None
    monkeypatch.setattr(security, "SESSION_SECONDS", -1)
    assert client.get("/").status_code == 303
    monkeypatch.undo()
    annotators.add(feedback, "ann")
    assert client.get("/").status_code == 303
    client = sign_in(app, feedback)
    annotators.revoke(feedback, "ann")
    assert client.get("/").status_code == 303


def test_signing_in_begins_a_new_session(app, feedback):
    client = browser(app)
    before = csrf(client.get("/sign-in"))
    cookie = client.cookies[security.COOKIE]
    client.post("/sign-in", data={"csrf": before, "token": annotators.add(feedback, "ann")})
    assert client.cookies[security.COOKIE] != cookie
    assert csrf(client.get("/")) != before


def test_guessing_tokens_is_stopped_and_a_right_one_does_not_help_then(app, feedback):
    client = browser(app)
    token = annotators.add(feedback, "ann")
    page = csrf(client.get("/sign-in"))
    codes = [
        client.post("/sign-in", data={"csrf": page, "token": f"guess-{n}"}).status_code for n in range(10)
    ]
    assert codes == [403] * security.MAX_FAILURES + [429] * 2
    assert client.post("/sign-in", data={"csrf": page, "token": token}).status_code == 429


def test_tokens_reach_no_log(app, feedback, make_batch, caplog):
    caplog.set_level(logging.DEBUG)
    make_batch()
    client = browser(app)
    token = annotators.add(feedback, "ann")
    wrong = token[:-1] + "x"
    for given in (wrong, token):
        client.post("/sign-in", data={"csrf": csrf(client.get("/sign-in")), "token": given})
    client.get("/batch/1")
    assert token.partition(".")[2] not in caplog.text
    assert wrong not in caplog.text


def test_the_admin_page_shows_agreement_and_excludes_and_restores(app, feedback, make_batch, closed):
    make_batch(3, overlap=2)
    for name in ("ann", "bob"):
        client = sign_in(app, feedback, name)
        page = client.get("/batch/1")
        for _ in range(2):
            shown = texts(page)
            ranks = ",".join(str(sorted(shown).index(text) + 1) for text in shown)
            page = submit(client, page, ranks, **{"flag-0": "unsafe"})
    admin = sign_in(app, feedback, "root", "admin")
    page = admin.get("/admin/batch/1")
    assert "Krippendorff" in page.text
    assert "<b>1.00</b>" in page.text
    assert "unsafe 4" in page.text
    ann = annotators.named(feedback, "ann").id
    admin.post(f"/admin/batch/1/rater/{ann}/exclude", data={"csrf": csrf(page)})
    assert "excluded" in admin.get("/admin/batch/1").text
    assert collected.rankings(feedback, 1)["rater"].unique().to_list() == ["bob"]
    admin.post(f"/admin/batch/1/rater/{ann}/restore", data={"csrf": csrf(page)})
    assert collected.rankings(feedback, 1).height == 4
    download = admin.get("/admin/batch/1/export/csv")
    assert "attachment" in download.headers["content-disposition"]
    assert download.text.count("\n") == 13
    admin.post("/admin/batch/1/close", data={"csrf": csrf(page)})
    assert batches.find(feedback, "1").closed_by == "root"
    assert closed == [True]


def test_a_simulated_batch_is_not_for_people(app, feedback, make_batch):
    make_batch(simulated=True)
    client = sign_in(app, feedback)
    assert "Nothing waits" in client.get("/").text
    assert client.get("/batch/1").status_code == 409
