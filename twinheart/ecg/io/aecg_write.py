"""Writing HL7 annotated ECGs, without a word about anyone."""

import uuid
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from twinheart.ecg.io.quantised import plain_number, quantised
from twinheart.ecg.leads import FURTHER_LEADS, LEADS, Ecg
from twinheart.errors import InputError
from twinheart.mesh.io.atomic import written_whole

_MDC = "2.16.840.1.113883.6.24"
_ACT = "2.16.840.1.113883.5.4"
_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 type="Observation">
<id root="{identity}"/>
<code code="93000" codeSystem="2.16.840.1.113883.6.12" codeSystemName="CPT-4"/>
<effectiveTime nullFlavor="MSK"/>
<componentOf><timepointEvent><componentOf><subjectAssignment>
<subject><trialSubject><id nullFlavor="MSK"/></trialSubject></subject>
<componentOf><clinicalTrial><id nullFlavor="MSK"/></clinicalTrial></componentOf>
</subjectAssignment></componentOf></timepointEvent></componentOf>
<component><series>
<id root="{series}"/>
<code code="RHYTHM" codeSystem="{act}" codeSystemName="ActCode"/>
<effectiveTime nullFlavor="MSK"/>
<component><sequenceSet>
<component><sequence><code code="TIME_RELATIVE" codeSystem="{act}"/>
<value xsi:type="GLIST_PQ">
<head value="{start}" unit="s"/><increment value="{step}" unit="s"/></value>
</sequence></component>
"""
_LEAD = """<component><sequence><code code={code} codeSystem="{mdc}" codeSystemName="MDC"/>
<value xsi:type="SLIST_PQ"><origin value="0" unit="uV"/><scale value="{scale}" unit="uV"/>
<digits>{digits}</digits></value></sequence></component>
"""
_TAIL = "</sequenceSet></component>\n</series></component>\n</AnnotatedECG>\n"


def write_aecg(path: Path, ecg: Ecg) -> list[Path]:
    """Write the leads as one rhythm series, in integers of 0.5 uV (or a multiple).

    Parameters
    ----------
    path : Path
        The file.
    ecg : Ecg
        Equally spaced samples [mV], none missing.

    Returns
    -------
    list of Path
        The file. Subject, trial and times are masked; the same ECG gives the same bytes.

    Raises
    ------
    InputError
        If a sample is missing, which the format cannot hold, or they are not equally spaced.
    OutputError
        If the file cannot be written.
    """
    samples, units = quantised(ecg)
    missing = int((~np.isfinite(np.asarray(ecg.signals))).sum())
    if missing:
        raise InputError(
            f"{missing} samples are missing, which HL7 aECG cannot hold; write WFDB, DICOM or CSV."
        )
    identity = uuid.uuid5(uuid.NAMESPACE_OID, samples.tobytes().hex())
    text = [
        _HEAD.format(
            identity=identity,
            series=uuid.uuid5(identity, "series"),
            act=_ACT,
            start=plain_number(float(ecg.t[0]) / 1e3),
            step=plain_number(ecg.step / 1e3),
        )
    ]
    for name, gain, column in zip(ecg.names, units, samples.T, strict=True):
        code = quoteattr(_code(name))
        digits = " ".join(str(sample) for sample in column.tolist())
        scale = plain_number(1e3 / gain)
        text.append(_LEAD.format(code=code, mdc=_MDC, scale=scale, digits=digits))
    with written_whole(path) as draft:
        draft.write_text("".join([*text, _TAIL]), encoding="utf-8")
    return [path]


def _code(name: str) -> str:
    if name in ("VX", "VY", "VZ"):
        return f"MDC_ECG_LEAD_{name[1:]}"
    return f"MDC_ECG_LEAD_{name.upper()}" if name in (*LEADS, *FURTHER_LEADS) else name
