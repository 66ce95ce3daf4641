"""DICOM waveforms (PS3.3 C.10.9): 12-lead, general and ambulatory ECG."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.ecg.io.bounded import MAX_BYTES, read_bytes
from twinheart.ecg.io.channels import MAX_SAMPLES, Channels, Contents
from twinheart.ecg.io.names import SCP_LEADS
from twinheart.errors import InputError
from twinheart.imaging.dicom_files import quiet_pydicom

_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_IDENTIFIERS = {
    **{"id": "PatientID", "name": "PatientName", "birth_date": "PatientBirthDate"},
    **{"sex": "PatientSex", "age": "PatientAge", "recorded": "AcquisitionDateTime"},
    **{"institution": "InstitutionName", "physician": "ReferringPhysicianName"},
}


def read_dicom_ecg(path: Path) -> Contents:
    """Read the multiplex groups of a DICOM waveform.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Groups of origin ORIGINAL are the rhythm, DERIVED ones the averaged beat.

    Raises
    ------
    InputError
        If it is damaged, compressed, or holds no waveform.
    """
    raw = read_bytes(path, MAX_BYTES)
    with quiet_pydicom("ecg") as pydicom:
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
            syntax = str(meta.get("TransferSyntaxUID", ""))
            if syntax == _DEFLATED:  # its size could not be bounded
                raise InputError(f"{path}: is deflated: save it uncompressed.")
            dataset = pydicom.dcmread(io.BytesIO(raw), force=False)
            identifiers = {
                key: str(dataset.get(tag) or "").strip() for key, tag in _IDENTIFIERS.items()
            }
            sequence = list(dataset.get("WaveformSequence") or [])
            kind = str(dataset.get("Modality") or "")
        except InputError:
            raise
        except Exception:  # pydicom raises many kinds, and its texts may quote the header
            raise InputError(f"{path}: the DICOM data are damaged: get the file again.") from None
        if not sequence:
            what = f" (modality {kind[:8]})" if kind.isalnum() else ""
            raise InputError(
                f"{path}: is DICOM without a waveform{what}; expected an ECG waveform object, not "
                "an image or an encapsulated PDF."
            )
        rhythm: list[Channels] = []
        beats: list[Channels] = []
        notes: list[str] = []
        order = ">" if syntax == _BIG_ENDIAN else "<"
        for number, group in enumerate(sequence, start=1):
            try:
                channels = _group(group, order, notes)
            except InputError as error:
                raise InputError(f"{path}: waveform {number} {error}") from None
            except Exception:
                raise InputError(
                    f"{path}: waveform {number} lacks an attribute or has one that is no number: "
                    "damaged."
                ) from None
            derived = str(group.get("WaveformOriginality", "ORIGINAL")) == "DERIVED"
            (beats if derived else rhythm).append(channels)
    if not rhythm:
        rhythm, beats = beats, []
        notes.append("the file holds derived waveforms only; they are taken as the recording")
    identifiers = {key: value for key, value in identifiers.items() if value}
    return Contents("DICOM", rhythm, beats, identifiers, notes)


def _group(group: Any, order: str, notes: list[str]) -> Channels:
    channels, samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    rate = float(group.SamplingFrequency)
    definitions = list(group.ChannelDefinitionSequence)
    if channels < 1 or len(definitions) != channels or channels * samples > MAX_SAMPLES:
        raise InputError(f"announces {channels} channels but defines {len(definitions)}: damaged.")
    kind = str(group.WaveformSampleInterpretation)
    if kind not in _TYPES:
        raise InputError(
            f"stores its samples as {kind[:4]}, which is not read; expected one of "
            f"{', '.join(_TYPES)}."
        )
    dtype = np.dtype(order + _TYPES[kind])
    data = bytes(group.WaveformData)
    if len(data) < channels * samples * dtype.itemsize:
        raise InputError(
            f"has {len(data)} bytes of samples, but announces {channels} channels of {samples}: "
            "incomplete, get the file again."
        )
    stored = np.frombuffer(data, dtype, count=channels * samples).reshape(samples, channels)
    values = stored.astype(np.float64)
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        code = int.from_bytes(padding, "little" if order == "<" else "big", signed=kind[0] == "S")
        values[stored == code] = np.nan
    labels, units = [], []
    for n, definition in enumerate(definitions):
        labels.append(_label(definition))
        units.append(_unit(definition))
        scale = float(definition.get("ChannelSensitivity") or math.nan)
        if not units[-1] or not math.isfinite(scale):
            scale, units[-1] = 1.0, ""
        scale *= float(definition.get("ChannelSensitivityCorrectionFactor") or 1.0)
        values[:, n] = values[:, n] * scale + float(definition.get("ChannelBaseline") or 0.0)
    skews = {str(d.get("ChannelTimeSkew") or d.get("ChannelSampleSkew") or 0) for d in definitions}
    if any(float(skew) != 0.0 for skew in skews):
        notes.append("channels are skewed in time by fractions of a sample; this was not undone")
    return Channels(labels, values, units, rate, float(group.get("MultiplexGroupTimeOffset") or 0))


def _label(definition: Any) -> str:
    """Name of a channel: by its code where that is known, else as written."""
    source = list(definition.get("ChannelSourceSequence") or [])
    meaning = str(source[0].get("CodeMeaning") or "") if source else ""
    code = str(source[0].get("CodeValue") or "") if source else ""
    scheme = str(source[0].get("CodingSchemeDesignator") or "") if source else ""
    prefix = {"SCPECG": "5.6.3-9-", "MDC": "2:"}.get(scheme)
    if prefix and code.startswith(prefix) and code.removeprefix(prefix).isdigit():
        known = SCP_LEADS.get(int(code.removeprefix(prefix)))
        if known:
            return known
    label = str(definition.get("ChannelLabel") or "")
    if "unspecified" in meaning.lower():
        meaning = ""
    return meaning or label or "unnamed"


def _unit(definition: Any) -> str:
    sequence = list(definition.get("ChannelSensitivityUnitsSequence") or [])
    return str(sequence[0].get("CodeValue") or "") if sequence else ""
