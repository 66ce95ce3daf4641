"""Lead names as vendors spell them, brought to one spelling."""

import re
from collections.abc import Iterable

from twinheart.ecg.leads import FURTHER_LEADS, LEADS

# Numbers of leads in SCP-ECG (EN 1064, table of lead identifications), shared by the coding
# schemes SCPECG and MDC that DICOM uses (CID 3001)
SCP_LEADS: dict[int, str] = {
    **{1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7"},
    **{10: "V2R", 11: "V3R", 12: "V4R", 13: "V5R", 14: "V6R", 15: "V7R"},
    **{16: "VX", 17: "VY", 18: "VZ", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 65: "-aVR"},
    **{66: "V8", 67: "V9"},
    # derived from others by the device
    **{31: "I", 32: "II", 33: "V1", 34: "V2", 35: "V3", 36: "V4", 37: "V5", 38: "V6"},
    **{111: "III", 112: "aVR", 113: "aVL", 114: "aVF"},
}
_BEFORE = re.compile(
    r"^(mdc_ecg_lead|derived|channel|lead|ecg|ekg|ableitung|deriv(ation|acion)?|frank)[ ._:-]+",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"[ ._:/-]+(ref(erence)?|wct|wilson|raw|filtered|filt)$", re.IGNORECASE)
_KNOWN = {lead.upper(): lead for lead in (*LEADS, *FURTHER_LEADS)}
_KNOWN |= {"D1": "I", "D2": "II", "D3": "III", "DI": "I", "DII": "II", "DIII": "III"}
_KNOWN |= {"X": "VX", "Y": "VY", "Z": "VZ"}
_KNOWN |= {f"C{n}": f"V{n}" for n in range(1, 10)}
_MODIFIED = {"MLI": "I", "MLII": "II", "ML2": "II", "MLIII": "III"}
_EINTHOVEN = {"E1": "I", "E2": "II", "E3": "III"}  # only beside aVR: else they are electrodes
_LONGEST = 40


def vendor_lead_name(label: str) -> str:
    """The project's spelling of a lead for a label found in a file; unknown ones stay.

    Parameters
    ----------
    label : str
        As in the file: ``MDC_ECG_LEAD_AVR``, ``Lead I (Einthoven)``, ``aV-R``, ``V1-REF``, ``DII``,
        ``ECG V5``, ``vx``.

    Returns
    -------
    str
        I, II, III, aVR ... V6, V7 ..., V3R ..., VX, VY, VZ, or the label itself. A modified limb
        lead (``MLII``) keeps its name: it is taken from the trunk.

    Examples
    --------
    >>> from twinheart.ecg.io.names import vendor_lead_name
    >>> labels = ("MDC_ECG_LEAD_AVR", "Lead I (Einthoven)", "aV-R", "V1-REF", "DII", "ECG V5", "vx")
    >>> [vendor_lead_name(label) for label in labels]
    ['aVR', 'I', 'aVR', 'V1', 'II', 'V5', 'VX']
    """
    plain = " ".join(str(label).split())[:_LONGEST]
    text = re.sub(r"\s*[(\[,].*$", "", plain)  # "I (Einthoven)", "aVR, augmented voltage, right"
    text = _REFERENCE.sub("", text.strip(" ._:"))
    while (shorter := _BEFORE.sub("", text)) != text and shorter:
        text = shorter
    sign = "-" if re.match(r"^[-\u2212]\s*\w", text) else ""
    key = re.sub(r"[^A-Za-z0-9]", "", text).upper().replace("LEAD", "")
    found = _KNOWN.get(key)
    if found and sign:
        return f"-{found}"
    return found or plain


def distinct_names(labels: Iterable[str]) -> tuple[list[str], list[str]]:
    """Spell the labels of a file and tell repeated ones apart.

    Parameters
    ----------
    labels : str
        One for each channel.

    Returns
    -------
    names : list of str
        Distinct lead names.
    notes : list of str
        What had to be decided.

    Examples
    --------
    >>> from twinheart.ecg.io.names import distinct_names
    >>> distinct_names(["MLII", "V5", "v5"])[0]
    ['II', 'V5', 'V5 (2)']
    """
    names: list[str] = []
    notes: list[str] = []
    spelt = [vendor_lead_name(label) for label in labels]
    if {*_EINTHOVEN, "aVR", "aVF"} <= set(spelt) and not {"I", "II", "III"} & set(spelt):
        spelt = [_EINTHOVEN.get(name, name) for name in spelt]
        notes.append("E1, E2, E3 beside the augmented leads are taken as I, II, III")
    for name in spelt:
        standard = _MODIFIED.get(name.upper())
        if standard and standard not in spelt and standard not in names:
            notes.append(f"{name}, a limb lead modified to the trunk, is taken as {standard}")
            name = standard
        name = name or "unnamed"
        copy, unique = 1, name
        while unique in names:
            copy += 1
            unique = f"{name} ({copy})"
        if copy > 1:
            notes.append(f"lead {name} is there more than once; this one is called {unique}")
        names.append(unique)
    return names, notes
