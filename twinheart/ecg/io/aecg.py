"""HL7 annotated ECG (aECG, ANSI/HL7 V3 ECG R1-2004): rhythm and representative beat."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.ecg.io.bounded import read_bytes
from twinheart.ecg.io.channels import MAX_SAMPLES, Channels, Contents
from twinheart.errors import InputError, UnitError
from twinheart.units import time_factor

_MAX_BYTES = 100_000_000
_TIMES = ("TIME_ABSOLUTE", "TIME_RELATIVE")


def read_aecg(path: Path) -> Contents:
    """Read an HL7 aECG file in any encoding that its first line states (UTF-8, UTF-16 ...).

    Parameters
    ----------
    path : Path
        The file. Entities and document types are refused.

    Returns
    -------
    Contents
        The sequence sets of the rhythm series (at their times) and of the derived beat.

    Raises
    ------
    InputError
        If it is no XML, no aECG, has entities, or holds no lead.
    """
    root = _root(path)
    if _local(root) != "AnnotatedECG":
        raise InputError(f"{path}: is XML, but no HL7 aECG: its root is not AnnotatedECG.")
    series = [s for s in _all(root, "series") if _children(s, "component")]
    notes: list[str] = []
    rhythm: list[Channels] = []
    beats: list[Channels] = []
    for number, one in enumerate(series, start=1):
        try:
            found = _sets(one)
            if not rhythm and found:
                rhythm = found
            elif found:
                notes.append(f"series {number} of {len(series)} was left out")
                continue
            for derived in _all(one, "derivedSeries"):
                beats = beats or _sets(derived)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    if not rhythm:
        raise InputError(f"{path}: is an HL7 aECG without a single lead.")
    return Contents("HL7 aECG", rhythm, beats, _identifiers(root), notes)


def _root(path: Path) -> Any:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(read_bytes(path, _MAX_BYTES), forbid_dtd=True)
    except DefusedXmlException:
        raise InputError(
            f"{path}: has a document type or entities, which may reach beyond the file; expected "
            "plain XML."
        ) from None
    except (ParseError, ValueError, LookupError):  # LookupError: an encoding nobody knows
        raise InputError(f"{path}: is no well-formed XML: get the file again.") from None


def _sets(series: Any) -> list[Channels]:
    """The sequence sets of a series, the first one starting at 0 ms."""
    sets = []
    for component in _children(series, "component"):
        for group in _children(component, "sequenceSet"):
            channels = _set(group)
            if channels is not None:
                sets.append(channels)
    start = min((channels.offset_ms for channels in sets), default=0.0)
    return [Channels(c.labels, c.values, c.units, c.rate_hz, c.offset_ms - start) for c in sets]


def _set(group: Any) -> Channels | None:
    labels: list[str] = []
    units: list[str] = []
    columns: list[np.ndarray] = []
    rate: float | None = None
    head = 0.0
    for component in _children(group, "component"):
        for sequence in _children(component, "sequence"):
            code = _child(sequence, "code")
            value = _child(sequence, "value")
            name = "" if code is None else code.get("code", "")
            if value is None:
                continue
            if name in _TIMES:
                head, rate = _time(value)
                continue
            samples, unit = _samples(value)
            labels.append(name or "unnamed")
            units.append(unit)
            columns.append(samples)
    if not columns:
        return None
    length = max(len(column) for column in columns)
    if length * len(columns) > MAX_SAMPLES:
        raise InputError("holds more samples than can be held; split the file.")
    values = np.full((length, len(columns)), np.nan)
    for n, column in enumerate(columns):
        values[: len(column), n] = column
    return Channels(labels, values, units, rate, head)


def _time(value: Any) -> tuple[float, float | None]:
    """Time of the first sample [ms] from an arbitrary origin, and the sampling rate [Hz]."""
    head, increment = _child(value, "head"), _child(value, "increment")
    start = 0.0
    if head is not None:
        text = head.get("value", "")
        unit = head.get("unit")
        start = _number(text) * _time_unit(unit) if unit else _stamp(text)
    if increment is None:
        return start, None
    step = _number(increment.get("value", "")) * _time_unit(increment.get("unit") or "s")
    if step <= 0:
        raise InputError(f"its sampling interval is {step:g} ms; expected a positive one.")
    return start, 1e3 / step


def _stamp(text: str) -> float:
    """HL7 time stamp (YYYYMMDDhhmmss.fff, as much as is given) in ms; 0 if it is none."""
    match = re.match(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\.\d+)?", text)
    if match is None:
        return 0.0
    month, day, hour, minute, second = (int(part or 0) for part in match.groups()[1:6])
    try:
        moment = datetime(int(match[1]), month or 1, day or 1, hour, minute, second)
    except ValueError:
        return 0.0
    return (moment - datetime(1970, 1, 1)).total_seconds() * 1e3 + float(match[7] or 0) * 1e3


def _samples(value: Any) -> tuple[np.ndarray, str]:
    """Samples of a lead in the unit of its scale."""
    digits = _child(value, "digits")
    text = "" if digits is None or digits.text is None else digits.text
    if len(text) > 12 * MAX_SAMPLES:
        raise InputError("holds more samples than can be held; split the file.")
    try:
        numbers = np.array(text.split(), dtype=np.float64)
    except ValueError:
        raise InputError("holds samples that are no numbers: damaged.") from None
    scale, origin = _child(value, "scale"), _child(value, "origin")
    if scale is None:
        return numbers, ""
    unit = scale.get("unit") or ""
    factor = _number(scale.get("value", "1"))
    zero = 0.0
    if origin is not None:
        zero = _number(origin.get("value", "0"))
        if zero and (origin.get("unit") or unit) != unit:
            raise InputError("gives origin and scale of a lead in different units: not read.")
    return zero + factor * numbers, unit


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise InputError("has a scale, an origin or a time that is no number: damaged.")
    return number


def _time_unit(unit: str) -> float:
    try:
        return time_factor(unit)
    except UnitError as error:
        raise InputError(f"has an {error}") from None


def _identifiers(root: Any) -> dict[str, str]:
    """Who was recorded, when and where, as far as it is stated."""
    found: dict[str, str] = {}
    for subject in _all(root, "trialSubject"):
        number = _child(subject, "id")
        if number is not None:
            found["id"] = number.get("extension") or number.get("root") or ""
        for person in _all(subject, "subjectDemographicPerson"):
            name = _child(person, "name")
            if name is not None:
                found["name"] = " ".join("".join(name.itertext()).split())
            for key, tag, attribute in (
                ("sex", "administrativeGenderCode", "code"),
                ("birth_date", "birthTime", "value"),
            ):
                node = _child(person, tag)
                if node is not None:
                    found[key] = node.get(attribute, "")
        break
    moment = _child(root, "effectiveTime")
    if moment is not None:
        found["recorded"] = next((node.get("value", "") for node in moment), "")
    for site in _all(root, "trialSite"):
        found["institution"] = next(
            ("".join(name.itertext()).strip() for name in _all(site, "name")), ""
        )
    return {key: value for key, value in found.items() if value}


def _local(node: Any) -> str:
    return str(node.tag).rpartition("}")[2]


def _children(node: Any, name: str) -> list[Any]:
    return [child for child in node if _local(child) == name]


def _child(node: Any, name: str) -> Any:
    return next((child for child in node if _local(child) == name), None)


def _all(node: Any, name: str) -> Iterator[Any]:
    return (child for child in node.iter() if _local(child) == name)
