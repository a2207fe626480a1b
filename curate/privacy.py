"""Personal data and secrets in a text. What is found is named and masked, never repeated.

Precision comes first: a finding nobody believes teaches a team to ignore the rule. A number counts as personal data
only where its check digit, its exact form or a word beside it says so; years, populations and part numbers do not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

Test = Callable[[str], Any]


class Hit(NamedTuple):
    """Something found in a text: what it is, and its first and last characters with the rest masked."""

    kind: str
    masked: str


def personal_data(text: str) -> list[Hit]:
    """E-mail addresses, phone numbers, IBANs, payment cards, national identity numbers and public IP addresses."""
    hits: dict[Hit, None] = {}
    taken: list[tuple[int, int]] = []  # a card is not a phone number too
    finders = [_emails] if "@" in text else []
    if _MANY_DIGITS.search(text):
        finders += [_ibans, _cards, _national_ids, _ips, _phones]
    else:
        finders += [_national_ids] if _LETTERED.search(text) else []
        finders += [_ips] if text.count(":") >= 2 or text.count(".") >= 3 else []
    for find in finders:
        for kind, start, end in find(text):
            if all(end <= low or start >= high for low, high in taken):
                taken.append((start, end))
                hits[Hit(kind, mask(text[start:end]))] = None
    return list(hits)


def secrets(text: str) -> list[Hit]:
    """Keys, tokens and passwords of known forms: the regular-expression plugins of detect-secrets, and a few more."""
    if not _may_hold_secret(text):
        return []
    hits: dict[Hit, None] = {}
    for kind, analyse in _detectors():
        hits |= dict.fromkeys(Hit(kind, _hidden(found)) for found in analyse(text) if found)
    return list(hits)


def mask(text: str) -> str:
    """The first two and the last two characters, as many as a person needs to find it again."""
    text = " ".join(text.split())
    return f"{text[:2]}…{text[-2:]} ({len(text)} characters)" if len(text) > 6 else f"… ({len(text)} characters)"


def _hidden(secret: str) -> str:
    """A secret's first characters say its kind; nothing of what follows is shown."""
    return f"{secret[:4]}… ({len(secret)} characters)" if len(secret) > 12 else f"… ({len(secret)} characters)"


Span = tuple[str, int, int]

_MANY_DIGITS = re.compile(r"\d(?:[\s().\-/]{0,3}\d){6}")  # begins with a digit: the search skips to the next one
_LETTERED = re.compile(r"[A-Z]{6}\d\d|[A-Z]{4}\d{6}|\d{6}A\d{3}")  # numbers of persons with fewer digits in a row
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w@])")
_RESERVED = re.compile(r"(?:^|[@.])(?:example\.(?:com|org|net)|[\w-]+\.(?:test|example|invalid|localhost))$", re.I)


def _emails(text: str) -> Iterator[Span]:
    for match in _EMAIL.finditer(text):
        if not _RESERVED.search(match.group()):  # RFC 2606: these belong to nobody
            yield "e-mail address", match.start(), match.end()


def _longest(kind: str, matches: Iterable[re.Match[str]], least: int, is_valid: Test) -> Iterator[Span]:
    """Of each match the longest valid part that begins where it does, if there is one.

    Words and numbers of another kind may follow what was looked for: groups are taken off at the end, down to `least`
    characters.
    """
    for match in matches:
        text, start = match.string, match.start()
        for at in range(match.end(), start + least - 1, -1):
            whole = text[at - 1].isalnum() and not text[at : at + 1].isalnum()
            if whole and is_valid(text[start:at].replace("\u00a0", " ")):
                yield kind, start, at
                break


_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ \u00a0]?[A-Z0-9]){11,30}\b")


def _ibans(text: str) -> Iterator[Span]:
    from stdnum import iban

    return _longest("IBAN", _IBAN.finditer(text), 15, iban.is_valid)


_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ \u00a0-]?\d){12,18}(?![\w-])(?![.,]\d)")
_ISSUERS = re.compile(
    r"(?:4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
    r"|62\d{14,17}|35(?:2[89]|[3-8]\d)\d{12})"
)


def _cards(text: str) -> Iterator[Span]:
    return _longest("payment card number", _CARD.finditer(text), 13, _is_card)


def _is_card(text: str) -> bool:
    from stdnum import luhn

    digits = re.sub(r"\D", "", text)
    return _ISSUERS.fullmatch(digits) is not None and luhn.is_valid(digits)


class _Number(NamedTuple):
    """A national number. `cue` is what must stand before it where its form alone would fit many other numbers."""

    kind: str
    form: str
    module: str
    cue: str = ""


_NUMBERS = (
    _Number("US social security number", r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    _Number("UK NHS number", r"\d{3} ?\d{3} ?\d{4}", "gb.nhs", r"\bnhs\b"),
    _Number("Canadian social insurance number", r"\d{3}[ -]\d{3}[ -]\d{3}", "ca.sin", r"\bsin\b|social insurance"),
    _Number("Spanish DNI", r"\d{8}-?[A-Z]", "es.dni"),
    _Number("Spanish NIE", r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    _Number("Italian fiscal code", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    _Number("French NIR", r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    _Number("German tax number", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr", r"steuer|\bidnr\b|tax id"),
    _Number("Dutch BSN", r"\d{9}|\d{4}\.\d{2}\.\d{3}", "nl.bsn", r"\bbsn\b|burgerservice|sofi"),
    _Number("Belgian national number", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),
    _Number("Swiss AHV number", r"756\.\d{4}\.\d{4}\.\d{2}", "ch.ssn"),
    _Number("Brazilian CPF", r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    _Number("Indian Aadhaar number", r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}", "in_.aadhaar"),
    _Number("Polish PESEL", r"\d{11}", "pl.pesel", r"\bpesel\b"),
    _Number("Swedish personal number", r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
    _Number("Finnish HETU", r"\d{6}[-+A]\d{3}[0-9A-Y]", "fi.hetu"),
    _Number("Danish CPR", r"\d{6}-\d{4}", "dk.cpr", r"\bcpr\b|personnummer"),
    _Number("Norwegian birth number", r"\d{6} ?\d{5}", "no.fodselsnummer", r"fødsels|personnummer|national id"),
    _Number("Chinese resident number", r"[1-9]\d{5}(?:19|20)\d{9}[\dX]", "cn.ric"),
    _Number("Korean resident number", r"\d{6}-[1-8]\d{6}", "kr.rrn"),
    _Number("Mexican CURP", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d", "mx.curp"),
)


@cache
def _national() -> tuple[tuple[_Number, re.Pattern[str], Test], ...]:
    return tuple(
        (
            one,
            re.compile(rf"(?<![\w.-])(?:{one.form})(?![\w-])(?!\.\d)"),
            import_module(f"stdnum.{one.module}").is_valid,
        )
        for one in _NUMBERS
    )


def _national_ids(text: str) -> Iterator[Span]:
    for one, form, is_valid in _national():
        for match in form.finditer(text):
            if (not one.cue or _before(text, match.start(), one.cue)) and is_valid(match.group()):
                yield one.kind, match.start(), match.end()


def _before(text: str, at: int, cue: str) -> bool:
    return re.search(cue, text[max(0, at - 40) : at], re.IGNORECASE) is not None


_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])")
_VERSION = r"(?:\bv(?:ersion|er)?\.?|release|section|chapter|§|build|firmware)\s*$"


def _ips(text: str) -> Iterator[Span]:
    for match in (*_IPV4.finditer(text), *_IPV6.finditer(text)):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        written = sum(1 for part in match.group().split(":") if part)
        if address.is_global and not _before(text, match.start(), _VERSION) and (address.version == 4 or written >= 3):
            yield "public IP address", match.start(), match.end()


_INTERNATIONAL = re.compile(r"(?<![\w+])(?:\+|00(?=[1-9]))[\d(][\d \t\u00a0().\-/]{6,22}\d")
_AMERICAN = re.compile(r"(?<![\w.+-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}(?![\w-])(?!\.\d)")
_NATIONAL = re.compile(r"(?<![\w+.,-])\(?\d[\d \t\u00a0().\-/]{5,18}\d(?!\w)")
_CUE = (
    r"\b(?:t[eé]l(?:[eé](?:ph|f)[oó]{1,2}n[eo]?)?|phones?|mobile|cell|handy|cellulare|celular|m[oó]vil"
    r"|call(?: us| me| her| him| them)?|fax|hotline|whatsapp|sms|rufnummer|text)\b[^\d\n]{0,20}\(?$"
    r"|(?:電話|携帯|电话|手机)[^\d\n]{0,20}\(?$|☎\s*$|📞\s*$"
)
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "BE", "CH", "AT", "SE", "PL", "IN", "BR", "MX", "AU", "JP", "CN")


def _phones(text: str) -> Iterator[Span]:
    yield from _longest("phone number", _INTERNATIONAL.finditer(text), 9, _is_international)
    for match in _AMERICAN.finditer(text):
        if _is_phone(match.group(), "US"):
            yield "phone number", match.start(), match.end()
    cued = (match for match in _NATIONAL.finditer(text) if _before(text, match.start(), _CUE))
    yield from _longest("phone number", cued, 7, _is_national)


def _is_international(text: str) -> bool:
    return _is_phone("+" + re.sub(r"^(?:\+|00)", "", text), None)


def _is_national(text: str) -> bool:
    return any(_is_phone(text, region) for region in _REGIONS)


def _is_phone(text: str, region: str | None) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


def _may_hold_secret(text: str) -> bool:
    """What every secret has and prose hardly ever: a long run with a digit in it, a URL, or the head of a key file."""
    if "PRIVATE KEY" in text or "://" in text or "hf_" in text or "PuTTY-User-Key" in text:
        return True
    runs = text.split()
    if max(map(len, runs), default=0) < 16:
        return False
    return any(len(run) >= 16 and not run.isalpha() and _DIGIT.search(run) for run in runs)


_DIGIT = re.compile(r"\d")
_PLUGINS = {
    "artifactory": "ArtifactoryDetector",
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "basic_auth": "BasicAuthDetector",
    "cloudant": "CloudantDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "ibm_cloud_iam": "IbmCloudIamDetector",
    "ibm_cos_hmac": "IbmCosHmacDetector",
    "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "private_key": "PrivateKeyDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "softlayer": "SoftlayerDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}
_MORE = {
    "Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}(?![\w-])"),
    "Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{34,}\b"),
    "Anthropic key": re.compile(r"\bsk-ant-[\w-]{40,}"),
    "OpenAI project key": re.compile(r"\bsk-(?:proj|svcacct|admin)-[\w-]{40,}"),
    "GitHub fine-grained token": re.compile(r"\bgithub_pat_\w{60,}"),
}


@cache
def _detectors() -> tuple[tuple[str, Callable[[str], Iterable[str]]], ...]:
    found: list[tuple[str, Callable[[str], Iterable[str]]]] = []
    for module, name in _PLUGINS.items():
        plugin = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
        # A web token is only known by decoding it; the others are their expressions, of which we want the whole match.
        analyse = plugin.analyze_string if module == "jwt" else _matcher(*plugin.denylist)
        found.append((str(plugin.secret_type), analyse))
    return (*found, *((kind, _matcher(form)) for kind, form in _MORE.items()))


def _matcher(*forms: re.Pattern[str]) -> Callable[[str], Iterable[str]]:
    return lambda text: [match.group() for form in forms for match in form.finditer(text)]
