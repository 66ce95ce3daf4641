"""What reading an ECG file gives, and whether several files are of one person."""

import functools
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence

import equinox as eqx

from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError

_PLACEHOLDER = re.compile(r"(.*anonym.*|unknown|none|n a|na|x+|0*|o)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_COMPARED = {"id": "patient numbers", "name": "names", "birth_date": "birth dates", "sex": "sexes"}


class Recording(eqx.Module):
    """An ECG as read from a file.

    Parameters
    ----------
    ecg : Ecg
        Leads [mV] over time [ms], from 0 unless the file counts otherwise; missing is NaN.
    format : str
        ``"WFDB"``, ``"DICOM"``, ``"HL7 aECG"``, ``"SCP-ECG"``, ``"EDF"``, ``"CSV"`` or ``"NPZ"``.
    notes : tuple of str
        What was derived, dropped or suspected, one sentence each, without a word about the person.
    beats : Ecg or None
        Averaged (representative) beat if the file has one; time [ms] from its beginning.
    identifiers : dict
        What the file says about the person and the place; empty unless asked for.
    person : dict
        Fingerprints of the identifiers, for `same_person`. They mean nothing outside this process.
    """

    ecg: Ecg
    format: str = eqx.field(static=True)
    notes: tuple[str, ...] = eqx.field(static=True, default=())
    beats: Ecg | None = None
    identifiers: dict[str, str] = eqx.field(static=True, default_factory=dict, repr=False)
    person: dict[str, str] = eqx.field(static=True, default_factory=dict, repr=False)


def fingerprints(identifiers: Mapping[str, str]) -> dict[str, str]:
    """Digests by which identifiers can be compared but not told.

    Parameters
    ----------
    identifiers : mapping
        ``id``, ``name``, ``birth_date``, ``sex``; others are left out, placeholders such as
        *Anonymous* too.

    Returns
    -------
    dict
        One digest a field. The key of the digests is random and lives as long as the process.

    Examples
    --------
    >>> from twinheart.ecg.io.recording import fingerprints
    >>> fingerprints({"name": "Doe^Jane"}) == fingerprints({"name": "JANE DOE"})
    True
    """
    found = {}
    for field in _COMPARED:
        plain = _plain(field, identifiers.get(field, ""))
        if not _PLACEHOLDER.fullmatch(plain):
            digest = hashlib.blake2b(plain.encode(), key=_key(), digest_size=16)
            found[field] = digest.hexdigest()
    return found


def same_person(recordings: Sequence[Recording]) -> bool:
    """Refuse recordings of different persons.

    Parameters
    ----------
    recordings : sequence of Recording
        Read in this process.

    Returns
    -------
    bool
        True if every recording states an identifier that another one states too and all agree;
        False if nothing can be compared (the files may be anonymous).

    Raises
    ------
    InputError
        If patient number, name, birth date or sex differ between two of them.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.io import Recording, same_person
    >>> same_person([Recording(Ecg(np.arange(2.0), np.zeros((2, 1)), ("I",)), "CSV")] * 2)
    False
    """
    for field, word in _COMPARED.items():
        stated = [
            (n, r.person[field]) for n, r in enumerate(recordings, start=1) if field in r.person
        ]
        for n, digest in stated[1:]:
            if digest != stated[0][1]:
                raise InputError(
                    f"recordings {stated[0][0]} and {n} are of different persons: their {word} "
                    "differ; give files of one person, or run each on its own."
                )
    fields = [set(r.person) for r in recordings]
    return len(fields) > 0 and all(
        any(field & other for m, other in enumerate(fields) if m != n) or len(fields) == 1
        for n, field in enumerate(fields)
    )


@functools.cache
def _key() -> bytes:
    return secrets.token_bytes(32)


def _plain(field: str, value: str) -> str:
    words = re.findall(r"\w+", str(value).casefold())
    if field == "name":
        return " ".join(sorted(words))
    if field == "sex":
        first = "".join(words)[:1]
        return {"m": "m", "f": "f", "1": "m", "2": "f", "w": "f"}.get(first, "")
    if field == "birth_date":
        return _plain_date(words)
    return "".join(words)


def _plain_date(words: list[str]) -> str:
    """Year, month and day in one row, from 19530508, 1953-05-08, 08.05.1953 and 08-MAY-1953."""
    if len(words) == 3 and words[1][:3] in _MONTHS:
        words[1] = f"{_MONTHS.index(words[1][:3]) + 1:02d}"
    if len(words) == 3 and len(words[2]) == 4:
        words = words[::-1]
    return "".join(word.zfill(2) for word in words)
