import pytest

from curate.privacy import mask, personal_data, secrets


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to anna.b@firma.de", "e-mail address"),
        ("+49 30 901820", "phone number"),
        ("0049 30 901820", "phone number"),
        ("call (212) 736-5000", "phone number"),
        ("Tel.: 030 901820", "phone number"),
        ("Telefono: 02 1234 5678", "phone number"),
        ("Celular: (11) 96123-4567", "phone number"),
        ("Telefoon 020 123 4567", "phone number"),
        ("お電話番号：03-1234-5678", "phone number"),
        ("手机 13800138000", "phone number"),
        ("DE89 3704 0044 0532 0130 00 PLEASE PAY", "IBAN"),
        ("card 4111 1111 1111 1111", "payment card number"),
        ("SSN 536-90-4399", "US social security number"),
        ("DNI 12345678Z", "Spanish DNI"),
        ("CPF 529.982.247-25", "Brazilian CPF"),
        ("host 8.8.8.8", "public IP address"),
        ("card 4111 1111 1111 1111 12/26", "payment card number"),
        ("card 4111111111111111 123", "payment card number"),
        ("+44 20 7946 0958 24 hours a day", "phone number"),
        ("+49 30 901820\n10115 Berlin", "phone number"),
        ("codice fiscale RSSMRA85T10A562S", "Italian fiscal code"),
        ("CURP BOXW310820HNERXN09", "Mexican CURP"),
        ("henkilötunnus 131052A308T", "Finnish HETU"),
        ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "IBAN"),
        ("host 2001:4860:4860::8888", "public IP address"),
    ],
)
def test_personal_data_is_found_and_masked(text, kind):
    hits = personal_data(text)
    assert [hit.kind for hit in hits] == [kind]
    shown = hits[0].masked.split(" (")[0]
    assert len(shown.replace("…", "")) <= 4


@pytest.mark.parametrize(
    "text",
    [
        "From 1914-1918 and 1939-1945 the population grew from 1,234,567 to 8 000 000.",
        "ISBN 978-3-16-148410-0, order 1234567890123456, part 4711-0815-2023",
        "card 4111 1111 1111 1112",  # the check digit is wrong
        "DE89 3704 0044 0532 0130 01",
        "version 1.2.3.4, 10.0.0.1, 192.168.1.1, 12:34:56, std::vector",
        "someone@example.com, latitude 40.7128, -74.0060, 2019 2020 2021 2022",
        "He called in 1984 with 2,500,000 others.",
    ],
)
def test_other_numbers_are_no_personal_data(text):
    assert personal_data(text) == []


SECRETS = {
    "AWS Access Key": "AKIA" + "IOSFODNN7EXAMPLE",
    "GitHub Token": "ghp_" + "a1B2" * 9,
    "Slack Token": "xoxb-" + "123456789012-abcdefghij",
    "Private Key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "Basic Auth Credentials": "postgres://bob:" + "hunter2@db",
    "JSON Web Token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "Hugging Face token": "hf_" + "aB" * 17,
    "Stripe Access Key": "sk_live_" + "a1" * 12,
    "Google API key": "AIza" + "Sy1" * 11 + "ab",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_found_and_never_shown(kind):
    hits = secrets(f"use {SECRETS[kind]} for it")
    assert kind in [hit.kind for hit in hits]
    for hit in hits:
        assert SECRETS[kind][4:12] not in hit.masked
        assert len(hit.masked.split("…")[0]) <= 4


def test_prose_holds_no_secrets():
    assert secrets("The internationalisation of counter-revolutionary movements, 1234567890-1234567890.") == []
    assert secrets("see https://example.com/a/b?c=1") == []


def test_a_mask_hides_short_texts_whole():
    assert mask("8.8.8") == "… (5 characters)"
