import logging
import re
from dataclasses import replace
from typing import NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Message, Pair
from mlflow_llamaduo.core.redact import KINDS, redact, redact_text
from tests.unit.builders import pair


def key(prefix: str, length: int) -> str:
    """A made-up key; never written out whole, so that no scanner of repositories takes it for somebody's."""
    return prefix + ("aB3dE5fG7hJ9kL2mN4pQ6rS8tU" * 4)[:length]


# Each value is in brackets here, and must become one placeholder. Numbers are those that are reserved for
# documentation, films and test payments, or samples that the issuers publish.
FOUND = {
    "email": (
        "Write to [john@example.com] today.",
        "Mail: [First.Last+tag@sub.example.co.uk]; thanks",
        "<a href='mailto:[x_y-z@example.org]'>",
        "From: Ann <[ann@example.net]>",
        "Our office is at [jörg@müller.example].",
        "(cc [o'neil@example.com])",
        "to=[a.b@example.travel]&subject=hi",
        "'[bob@example.test]' in users",
        "ask [99problems@example.io].",
        "[support@xn--bcher-kva.example], or the shop",
        "@[mona@social.example] said hello",
        "\uff1a[ann\uff20example.com]",
    ),
    "phone": (
        "Call [(415) 555-0132] now",
        "[415-555-0132] is the office",
        "my number: [+1 415 555 0132].",
        "[1-800-555-0199], toll free",
        "London: [020 7946 0958]",
        "[+44 (0)20 7946 0958] from abroad",
        "Telefon [030 23125 123], Berlin",
        "[01 99 00 12 34] à Paris",
        "[+49 30 23125-123]",
        "mobile [07700 900123]",
        "phone=[4155550132]",
        "[01.99.00.12.34]",
        "[020 7946 0958], [020 7946 0959] / [0161 496 0000]",
        "phone,name\n[415-555-0132],[415-555-0199]",
        "Ring [0491 570 006] in Sydney, or [(02) 5550 1234]",
        "text me on [+61491570006]",
        "[(555) 123-4567] is in every film",
        "reach us at [415 555 0132] 24/7",
        "call [555-0132] tonight",
        "[+44\u00a020\u00a07946\u20110958]",
        "whatsapp: [\u0660\u0662\u0660 \u0667\u0669\u0664\u0666 \u0660\u0669\u0665\u0668]",
    ),
    "card": (
        "Pay with [4111 1111 1111 1111].",
        "card: [4242424242424242], 12/27",
        "[5555-5555-5555-4444] was declined",
        "[5105105105105100]",
        "[4242424242424242],[5105105105105100]",
        "amex [3782 822463 10005]",
        "[371449635398431] and its code 1234",
        "[6011 1111 1111 1117]",
        "[3530111333300000] (JCB)",
        "[2223003122003222] is a new Mastercard",
        "Diners card [30569309025904]",
        "visa [4222222222222]",
        "[4111\u20131111\u20131111\u20131111]",
        "number [4012 8888 8888 1881] 123",
    ),
    "iban": (
        "IBAN [GB82 WEST 1234 5698 7654 32] for the rent",
        "[DE89370400440532013000]",
        "an [FR14 2004 1010 0505 0001 3M02 606].",
        "[ES91 2100 0418 4502 0005 1332], Madrid",
        "[IT60X0542811101000000123456]",
        "[NL91 ABNA 0417 1643 00] and more",
        "[CH93 0076 2011 6238 5295 7]",
        "[be68 5390 0754 7034] in lower case",
        "AB12 CDEF [AT61 1904 3002 3457 3201]",
        "[PL61109010140000071219812874]",
        "[NO93-8601-1117-947]",
        "(SE: [SE45 5000 0000 0583 9825 7466])",
    ),
    "ip": (
        "from [192.0.2.1] port 22",
        "ssh root@[198.51.100.23]",
        "http://[203.0.113.7]:8080/path",
        "the gateway is [192.168.0.17].",
        "[10.1.2.3]/8",
        "connected to [10.1.2.3]\n- [10.1.2.4]",
        "[192.168.1.10]-[192.168.1.20]",
        "if ip == '[10.1.2.3]':",
        "[172.16.4.9] - - GET /",
        "dns server [8.8.4.4]",
        "host = '[1.2.3.4]'",
        "http://[[2001:db8::1]]:80/",
        "[2001:0db8:85a3:0000:0000:8a2e:0370:7334] answered",
        "[fe80::1ff:fe23:4567:890a]%eth0",
        "[::ffff:192.0.2.128] is both",
        "[fd12:3456:789a:1::1]: no answer",
    ),
    "national_id": (
        "SSN [078-05-1120]",
        "[219-09-9999],[078-05-1120]",
        "[900-12-3456] is nobody's",
        "my social security number is [219 09 9999]",
        "NI number [QQ 12 34 56 C]",
        "[AB123456C] is on the payslip",
        "NHS number: [943 476 5919]",
        "SIN [130 692 544]",
        "Steuer-ID [36574261809]",
        "né, [2 95 10 99 126 111 93]",
        "DNI [54362315K], NIE [X2482300W]",
        "codice fiscale [RCCMNL83S18D969H]",
        "BSN [111222333]",
        "PESEL: [44051401458]",
        "CPF [390.533.447-05]",
        "Aadhaar [2341 2341 2346]",
        "personnummer [880320-0016]",
        "[131052-308T] (hetu)",
        "[85.07.30-033.28]",
        "AHV [756.9217.0769.85]",
        "[360426199101010071]",
        "[233646199101015075], of a district that is in no table",
        "[BOXW310820HNERXN09]",
        "[971013-9019902]",
    ),
    "secret": (
        f"key [{key('sk-proj-', 40)}]",
        f"[{key('sk-ant-api03-', 60)}] is Anthropic's",
        f"AWS_ACCESS_KEY_ID=[{'AKIA' + 'IOSFODNN7EXAMPLE'}]",
        f"git clone https://[{key('ghp_', 36)}]@host.example/x",
        f"[{key('github_pat_', 60)}]",
        f"slack [{key('xoxb-123456789012-', 24)}]",
        f"?key=[{key('AIza', 35)}]&x=1",
        f"[{'hf_' + 'abcdefghijklmnopqrstuvwxyz' + 'ABCDEFGH'}] without a digit",
        f"[{'xoxb-123456789012-' + 'abcdefghijkl'}]",
        f"stripe.api_key = '[{key('sk_live_', 24)}]'",
        f"login([{key('hf_', 34)}])",
        f"\\n[{key('AIza', 35)}]\\n",
        "jwt [eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz]",
        "Authorization: Bearer [abcdef123456ghijkl]",
        "send Bearer [abcdef123456ghijkl].",
        "Authorization: Basic [dXNlcjpwYXNzd29yZA==]",
        "postgres://app:[s3cret]@db.example/x",
        'password = "[hunter2]"',
        "DB_PASSWORD=[Tr0ub4dor]",
        "The password is [hunter22].",
        '{"api_key": "[0a1b2c3d4e5f6071]"}',
        'clientSecret: "[q8Z-3kfT_91xYv]"',
        "<password>[pa55word]</password>",
        "mysql --password=[Wint3rIsHere] -u root",
        f"[-----BEGIN RSA PRIVATE KEY-----\n{'MIIEow' * 10}\n-----END RSA PRIVATE KEY-----]\nafter",
        f"cut off: [-----BEGIN PRIVATE KEY-----\n{'MIIEow' * 10}\n{'b3Bl' * 10}]\n\nSee above.",
    ),
}

# Nothing is to be found in these, of any kind.
CLEAN = {
    "email": (
        "git@host.example:org/repo.git",
        "@app.route('/x')",
        "user@localhost",
        "https://user:password@host.example/x",
        "npm install lodash@4.17.21",
        "icon@2x.png",
        "a @ b",
        "A@B.T",
        "rate: 3@1.50",
        "@john follows @ann",
        "x@y.mean(axis=0)",
        "me@",
        "<EMAIL_1> and <EMAIL_2>",
    ),
    "phone": (
        "2023-11-22 10:30",
        "01/02/2003, 01.02.2003",
        "from 1990-2000 to 2010-2020",
        "1699999999 seconds",
        "order 415-555-0132",
        "ISBN 0-306-40615-2",
        "ISBN 978-3-16-148410-0",
        "Boston, MA 02110-1301",
        "40.712776, -74.005974",
        "1 000 000 000 people",
        "3.14159265358979",
        "x = 4155550132",
        "$415.555.0132",
        "100 200 300 400 500 600",
        "00 11 22 33 44 55",
        "+1234567",
        "(1234567890)",
        "called it 20231122",
        "Math. 5 (1996) 329-359",
        "+1980-02-29 01:02:03",
        "550e8400-e29b-41d4-a716-446655440000",
        "the phone costs 1,000,000,000",
    ),
    "card": (
        "4111 1111 1111 1112",
        "1234567890123456",
        "9007199254740991",
        "0.4111111111111111",
        "4111111111111111.5",
        "4111111111111111a",
        "2010 2011 2012 2013",
        "1699999999999",
        "41111111111111111111111",
        "4222222222222",
        "978-3-16-148410-0",
        "id_4111111111111111",
        "1111 1111 1111 1117",
    ),
    "iban": (
        "GB82 WEST 1234 5698 7654 33",
        "DE00370400440532013000",
        "DE8937040044053201300",
        "DE893704004405320130000",
        "QQ82 1234 5678 9012 3456",
        "AB12 CD34 EF56 GH78",
        "xGB82WEST12345698765432",
        "is12 more than we had before",
        "GB82",
        "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "no93 is a motor way in the north",
    ),
    "ip": (
        "127.0.0.1",
        "listen on 0.0.0.0:80",
        "netmask 255.255.255.0",
        "localhost, ::1 and ::",
        "version 10.0.19.4",
        "v2.10.3.11",
        "requests==12.31.0.1",
        'version = "12.31.0.1"',
        "1.2.3.4 Scope",
        "256.300.1.1",
        "1.3.6.1.4.1.311",
        "Chrome/120.0.6099.109",
        "std::vector<int>, Face::Bad, ad::b",
        "12:30:45",
        "00:1a:2b:3c:4d:5e",
        "x[1::2]",
        "app-10.20.30.40.tar.gz",
        "update from 12.31.0.1 or to 12.31.0.2-beta",
        'ObjectIdentifier("2.5.29.24")',
        "::ffff:127.0.0.1 and fc00::/7",
        "http://169.254.169.254/latest",
    ),
    "national_id": (
        "000-12-3456",
        "123-00-4567",
        "130 692 544",
        "943 476 5919",
        "111222333",
        "44051401458",
        "36574261809",
        "54362315A",
        "RCCMNL83S18D969X",
        "390.533.447-06",
        "880320-0017",
        "85.07.30-033.29",
        "a sin of 123456789 people",
        "2341 2341 2346",
        "2023-11-22",
        "build 20231122T101500",
    ),
    "secret": (
        "sk-loading-indicator-wrapper-2",
        "hf_transfer and sk-learn",
        f"ghp_{'x' * 36}",
        "password = get_password()",
        "password: str, token: int = 12345678",
        'password = os.environ["DB_PASSWORD1"]',
        "max_tokens=4096, tokenizer='bert-base-uncased-v2'",
        'api_key = "your-api-key-here-1"',
        'api_key = "test1test1test1"',
        "password=${DB_PASSWORD1}",
        "postgres://user:password@localhost/db",
        "sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        '{"eos_token": "<|endoftext_1|>"}',
        "bearer authentication-mechanisms",
        'if "-----BEGIN PRIVATE KEY-----" in text:',
        "token = tokens[position1]",
        "The password is required.",
        "password must be at least 8 characters",
        "https://host.example:8080/a@b",
        "key: value123456789",
    ),
}


def planted(text: str) -> tuple[str, list[str]]:
    """The text without the outer brackets, and the values that were in them."""
    parts = text.replace("[[", "[\1").replace("]]", "\2]").replace("[", "\0").replace("]", "\0").split("\0")
    if text.startswith("http://[["):
        parts = ["http://[", "2001:db8::1", "]:80/"]
    return "".join(parts), parts[1::2]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_every_planted_value_is_replaced_and_nothing_beside_it(kind: str, text: str) -> None:
    raw, values = planted(text)
    expected = raw
    for number, value in enumerate(values, 1):
        expected = expected.replace(value, f"<{kind.upper()}_{number}>")

    assert values
    assert redact_text(raw) == (expected, {kind: len(values)})


@pytest.mark.parametrize("text", [text for texts in CLEAN.values() for text in texts])
def test_what_only_looks_like_a_value_stays(text: str) -> None:
    assert redact_text(text) == (text, {})
    assert redact_text(f"We saw {text}\nyesterday.") == (f"We saw {text}\nyesterday.", {})


def test_every_kind_has_ten_values_that_are_found_and_ten_that_are_not() -> None:
    assert set(FOUND) == set(CLEAN) == set(KINDS)
    assert all(len(texts) >= 10 for table in (FOUND, CLEAN) for texts in table.values())


def test_numbers_count_in_order_of_appearance_over_the_whole_row() -> None:
    row = Pair(
        (
            Message("system", "Answer as ann@example.com would."),
            Message("user", "I am bob@example.com, call 415-555-0132"),
            Message("assistant", "Hello bob@example.com!"),
            Message("user", "Who are you?"),
        ),
        "ann@example.com; you are BOB@example.com, at +1 (415) 555-0132, not 415-555-0199.",
        category="chat",
        source="trace",
    )

    assert redact(row) == (
        Pair(
            (
                Message("system", "Answer as <EMAIL_1> would."),
                Message("user", "I am <EMAIL_2>, call <PHONE_1>"),
                Message("assistant", "Hello <EMAIL_2>!"),
                Message("user", "Who are you?"),
            ),
            "<EMAIL_1>; you are <EMAIL_2>, at <PHONE_1>, not <PHONE_2>.",
            category="chat",
            source="trace",
        ),
        {"email": 5, "phone": 3},
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("JOHN@Example.com", "john@example.com"),
        ("020 7946 0958", "+44 (0)20 7946-0958"),
        ("030 23125 123", "+49 30 23125123"),
        ("4111-1111-1111-1111", "4111111111111111"),
        ("GB82 WEST 1234 5698 7654 32", "gb82west12345698765432"),
        ("2001:db8::1", "2001:0DB8:0:0:0:0:0:1"),
        ("my SSN 219 09 9999", "SSN: 219-09-9999"),
    ],
)
def test_a_value_has_one_placeholder_however_it_is_written(one: str, other: str) -> None:
    redacted, counts = redact(pair(one, other))

    assert list(counts.values()) == [2]
    assert redacted.instruction[-3:] == redacted.response[-3:] == "_1>"


def test_a_pair_without_findings_is_the_same_object() -> None:
    clean = pair("When did the mill burn down?", "In 1902.")
    suspicious = pair("key 123456 and 2023-11-22", "https://host.example/a")

    for row in (clean, suspicious):
        redacted, counts = redact(row)
        assert redacted is row
        assert counts == {}


def test_a_new_value_never_takes_a_placeholder_that_the_row_holds() -> None:
    row = pair("Dear <EMAIL_1> and <EMAIL_3>, write to a@example.com", "or b@example.com or <EMAIL_1>")
    redacted, counts = redact(row)

    assert redacted == pair("Dear <EMAIL_1> and <EMAIL_3>, write to <EMAIL_2>", "or <EMAIL_4> or <EMAIL_1>")
    assert counts == {"email": 2}


def test_only_the_kinds_asked_for_are_replaced() -> None:
    text = "john@example.com, 4111 1111 1111 1111, 192.0.2.1"

    assert redact_text(text, kinds=("card",)) == ("john@example.com, <CARD_1>, 192.0.2.1", {"card": 1})
    assert redact_text(text, kinds=()) == (text, {})


def test_a_kind_that_there_is_not_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(ValueError, match="emails"):
        redact(pair(), kinds=("emails",))


def test_numbers_without_a_country_are_those_of_the_regions_asked_for() -> None:
    text = "020 7946 0958, 415-555-0132, +49 30 23125123"

    assert redact_text(text, regions=("GB",))[0] == "<PHONE_1>, 415-555-0132, <PHONE_2>"
    assert redact_text(text, regions=("US",))[0] == "020 7946 0958, <PHONE_1>, <PHONE_2>"
    assert redact_text(text, regions=())[0] == "020 7946 0958, 415-555-0132, <PHONE_1>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://app:s3cret@host.example.com/", "https://app:<SECRET_1>@host.example.com/"),
        (f"password={key('ghp_', 36)}", "password=<SECRET_1>"),
        ("4155550132@example.com", "<EMAIL_1>"),
        ("call DE89 3704 0044 0532 0130 00", "call <IBAN_1>"),
        ("phone 4111 1111 1111 1111", "phone <CARD_1>"),
        ("contact: SSN 219-09-9999", "contact: SSN <NATIONAL_ID_1>"),
        ("call the host 192.168.100.200", "call the host <IP_1>"),
        ("mail bob@192.0.2.1", "mail bob@<IP_1>"),
    ],
)
def test_of_findings_that_overlap_the_surer_kind_wins(text: str, expected: str) -> None:
    assert redact_text(text)[0] == expected


@pytest.mark.parametrize("before", ["<PHONE_1>", "<SECRET_1>:", "phone: somebody@an-address.example"])
def test_a_placeholder_is_no_word_that_explains_the_number_after_it(before: str) -> None:
    redacted, counts = redact_text(f"{before} 4155550132")

    assert redacted.endswith(" 4155550132")
    assert "phone" not in counts


def test_a_hostile_chain_of_numbers_leaves_nothing_of_itself() -> None:
    chain = "+49 30 1234567" * 40

    redacted, counts = redact_text(chain)
    assert redacted.count("PHONE") == counts["phone"]
    assert "1234567" not in redacted
    assert redact_text(redacted) == (redacted, {})


def test_nothing_is_said_of_the_values(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG):
        _, counts = redact(pair("john@example.com, call 415-555-0132", "password = 'hunter2'"))

    assert set(counts) <= set(KINDS)
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


PLACEHOLDER = re.compile(r"<(?:EMAIL|PHONE|CARD|IBAN|IP|NATIONAL_ID|SECRET)_\d+>")
VALUES = [planted(text)[0] for texts in (*FOUND.values(), *CLEAN.values()) for text in texts]
JOINTS = [
    "",
    " ",
    ",",
    "-",
    ".",
    "\n",
    "<",
    ">",
    "<EMAIL_1>",
    "<PHONE_2>",
    "_1>",
    "0",
    "1",
    "+",
    "(",
    "/",
    ":",
    "a",
    "\0",
]
JOINTS += ["phone ", "password=", "SSN ", "\u0661", "\u0130", "\u2013", "é", "version "]
TEXTS = st.lists(st.sampled_from(VALUES) | st.sampled_from(JOINTS) | st.text(max_size=3), max_size=9).map("".join)


@given(TEXTS | st.text())
@example("+49 30 1234" * 30)
@example("phone 4155550132" * 12)
def test_a_second_redaction_changes_nothing(text: str) -> None:
    once, _ = redact_text(text)

    assert redact_text(once) == (once, {})


@given(TEXTS, TEXTS)
def test_text_outside_of_the_findings_is_unchanged(prompt: str, response: str) -> None:
    before = pair(prompt, response)
    after, counts = redact(before)

    assert replace(after, prompt=before.prompt, response=before.response) == before
    texts = [(prompt, after.prompt[0].content), (response, after.response)]
    for old, new in texts:
        between = "(?s:.+?)".join(map(re.escape, PLACEHOLDER.split(new)))
        assert re.fullmatch(between, old)
    placeholders = [len(PLACEHOLDER.findall(new)) - len(PLACEHOLDER.findall(old)) for old, new in texts]
    assert sum(placeholders) == sum(counts.values())


HOSTILE = [
    *(
        "1",
        "1 ",
        "12-",
        "@",
        "a@",
        "a.",
        "@a.",
        "a@b.co ",
        "-",
        "+",
        "+1",
        "+49 30 1234",
        "012 34 ",
        "(012) ",
        "4111 ",
    ),
    *(
        "4111-1111-1111-111",
        "41111111111111111 ",
        "GB82",
        "ab12 cd34 ",
        "1.1.1.",
        "10.20.30.40 ",
        ":",
        "a:",
        "fe80::",
    ),
    *("eyJaaaaaaaa.", "password=", "token: a1", "password=a1b2c3d4 ", "://", "://a:", "bearer ", "-----BEGIN "),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "sk-",
        "sk-a1",
        "phone 1",
        "phone 4155550132 ",
        "123-45-",
        "\u0661",
        "<EMAIL_1>",
    ),
]
TAIL = " a@b key sk-1 :: bearer x phone 1234567 1.2.3.4"  # so that no detector sees at a glance that it has no work


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_long_hostile_text_is_redacted_and_redacted_again_it_stays_as_it_is(piece: str) -> None:
    text, _ = redact_text(piece * (6000 // len(piece)) + TAIL)

    assert redact_text(text) == (text, {})


def test_a_clean_row_is_seen_to_be_clean_without_any_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a detector was asked about a clean row")

    monkeypatch.setattr("mlflow_llamaduo.core.redact.row.find", refuse)
    prose = "In 1902 the mill at Arn burnt down; 3 of its 41 workers, aged 19-64, lost $1,200.50 (or 12%) each. " * 5
    clean = pair(prose, "At 10:30, in v2.1 of the plan: 2nd, 3.5 m, x = 7.")

    assert redact(clean) == (clean, {})
