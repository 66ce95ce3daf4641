"""Writing DICOM ECG waveforms (PS3.3 A.34.3, A.34.4), without a word about anyone."""

import hashlib
from pathlib import Path

from twinheart.ecg.io.names import SCP_LEADS
from twinheart.ecg.io.quantised import MISSING, plain_number, quantised
from twinheart.ecg.leads import LEADS, Ecg
from twinheart.errors import InputError
from twinheart.imaging.dicom_files import quiet_pydicom
from twinheart.mesh.io.atomic import written_whole

_TWELVE_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"
_GENERAL = "1.2.840.10008.5.1.4.1.1.9.1.2"
_MOST_SAMPLES, _MOST_CHANNELS = 16384, 24
_NO_DATE = "19000101"  # the standard demands a date; this one says nothing
_CODES = {lead: number for number, lead in reversed(SCP_LEADS.items())}


def write_dicom_ecg(path: Path, ecg: Ecg) -> list[Path]:
    """Write a 12-lead ECG object, or a general one for other leads or longer recordings.

    Parameters
    ----------
    path : Path
        The file.
    ecg : Ecg
        Equally spaced samples [mV], at most 24 leads; NaN becomes the padding value.

    Returns
    -------
    list of Path
        The file. Patient and date are placeholders; the same ECG gives the same bytes.

    Raises
    ------
    InputError
        If there are too many leads, samples are not equally spaced, or pydicom is not installed.
    OutputError
        If the file cannot be written.
    """
    if len(ecg.names) > _MOST_CHANNELS:
        raise InputError(
            f"the ECG has {len(ecg.names)} leads, but a DICOM waveform holds {_MOST_CHANNELS}; "
            "choose some, or write CSV or WFDB."
        )
    samples, units = quantised(ecg)
    twelve = set(ecg.names) <= set(LEADS) and len(samples) <= _MOST_SAMPLES
    kind = _TWELVE_LEAD if twelve else _GENERAL
    digest = hashlib.sha256(samples.tobytes() + "|".join(ecg.names).encode()).hexdigest()
    with quiet_pydicom("ecg") as pydicom:
        from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

        uids = [
            pydicom.uid.generate_uid(entropy_srcs=[digest, part])
            for part in ("study", "series", "instance")
        ]
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.UID(kind)
        meta.MediaStorageSOPInstanceUID = uids[2]
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
        dataset.SOPClassUID, dataset.SOPInstanceUID = kind, uids[2]
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids[:2]
        dataset.Modality, dataset.Manufacturer = "ECG", "twinheart"
        dataset.PatientName, dataset.PatientID = "Anonymous", ""
        dataset.PatientBirthDate = dataset.PatientSex = ""
        dataset.StudyDate = dataset.StudyTime = dataset.ReferringPhysicianName = ""
        dataset.StudyID = dataset.AccessionNumber = ""
        dataset.SeriesNumber = dataset.InstanceNumber = 1
        dataset.ContentDate, dataset.ContentTime = _NO_DATE, "000000"
        dataset.AcquisitionDateTime = f"{_NO_DATE}000000"
        dataset.AcquisitionContextSequence = []
        group = Dataset()
        group.MultiplexGroupTimeOffset = f"{float(ecg.t[0]):.10g}"
        group.WaveformOriginality = "ORIGINAL"
        group.NumberOfWaveformChannels = len(ecg.names)
        group.NumberOfWaveformSamples = len(samples)
        group.SamplingFrequency = f"{1000.0 / ecg.step:.10g}"
        group.MultiplexGroupLabel = "RHYTHM"
        group.ChannelDefinitionSequence = [
            _channel(Dataset, name, gain) for name, gain in zip(ecg.names, units, strict=True)
        ]
        group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
        group.WaveformPaddingValue = MISSING.to_bytes(2, "little", signed=True)
        group.WaveformData = samples.astype("<i2").tobytes()
        dataset.WaveformSequence = [group]
        with written_whole(path) as draft:
            dataset.save_as(draft, enforce_file_format=True)
    return [path]


def _channel(dataset: type, name: str, units_per_mv: float):
    channel, source, unit = dataset(), dataset(), dataset()
    source.CodeValue = f"2:{_CODES.get(name, 0)}"
    source.CodingSchemeDesignator = "MDC"
    source.CodeMeaning = f"Lead {name}" if name in _CODES else "Unspecified lead"
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
    channel.ChannelLabel = name[:16]
    channel.ChannelSourceSequence = [source]
    channel.ChannelSensitivity = plain_number(1e3 / units_per_mv)
    channel.ChannelSensitivityUnitsSequence = [unit]
    channel.ChannelSensitivityCorrectionFactor = "1"
    channel.ChannelBaseline = channel.ChannelSampleSkew = "0"
    channel.WaveformBitsStored = 16
    return channel
