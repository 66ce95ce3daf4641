"""ECGs of induced tachycardias for the commands: where electrodes come from, files, features."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinheart.cli.terminal import say
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.anatomy import Heart
    from twinheart.calibration.twin_file import StoredTwin
    from twinheart.cli.case import Case
    from twinheart.planning.induction.one_site import SiteResult
    from twinheart.planning.induction.protocols import Protocol
    from twinheart.planning.induction.tachycardias import Tachycardia
    from twinheart.planning.substrate import Substrate
    from twinheart.planning.vt_ecg import BodyLeads

METHOD = (
    "ECG of a tachycardia: two seconds of the re-excitable eikonal run, the last of the "
    "observation, or from its first quarter on where it is shorter; template action potentials "
    "with the duration of each activation, fronts integrated within the elements, low-pass of "
    "1 ms, by the lead field; QRS of the average beat, axis and pattern from areas"
)
_SUFFIXES = (".csv", ".hea")


def leads_of(
    heart: "Heart",
    electrodes: str | None,
    lead_field: str | None,
    *,
    stored: "StoredTwin | None" = None,
    case: "Case | None" = None,
) -> "BodyLeads | None":
    """Electrodes and lead field of an ECG, in the order: options, case, twin, standard.

    Parameters
    ----------
    heart : Heart
        What is between the electrodes.
    electrodes : str, optional
        File of electrodes, or ``"standard"``.
    lead_field : str, optional
        File of ``twinheart leadfield``.
    stored : StoredTwin, optional
        A calibrated twin, with the electrodes that it was fitted with.
    case : Case, optional
        Its table [ecg].

    Returns
    -------
    BodyLeads or None
        None where a case says that there are no electrodes.

    Raises
    ------
    InputError
        If a file cannot be used.
    """
    from twinheart.calibration.twin_file import load_twin
    from twinheart.cli.build import is_calibrated
    from twinheart.ecg import read_electrodes, read_lead_field, standard_12_lead
    from twinheart.planning.vt_ecg import BodyLeads

    if case is not None and electrodes is None:
        electrodes = case.ecg.electrodes
        lead_field = lead_field or case.ecg.lead_field
    if electrodes == "none":
        return None
    if stored is None and case is not None and is_calibrated(case):
        stored = load_twin(case.heart.file)
    given = None
    if electrodes not in (None, "standard"):
        given = read_electrodes(Path(electrodes))
    if lead_field is not None:
        field = read_lead_field(Path(lead_field), heart, electrodes=given)
        return BodyLeads(field.electrodes, field)
    if given is None and stored is not None and stored.twin.electrodes is not None:
        if stored.facts.get("stored_lead_field"):
            say(
                "twinheart: note: this twin was fitted in a torso; without its --lead-field the "
                "ECG of a tachycardia is that of an unbounded medium"
            )
        given = stored.twin.electrodes
    return BodyLeads(standard_12_lead(heart) if given is None else given)


def folder_of(vt_ecg: Path | None, out: Path | None, wanted: bool) -> Path | None:
    """Folder of ECGs: that which is named, else beside the results; None where none are wanted.

    Raises
    ------
    InputError
        If ECGs are wanted and no place for them is named.
    """
    if vt_ecg is not None or not wanted:
        return vt_ecg
    if out is None:
        raise InputError(
            "--electrodes and --lead-field are for the ECGs of tachycardias: name a folder for "
            "them (--vt-ecg), or a file of results beside which they are put (--out)."
        )
    return out.with_name(f"{out.stem}_ecg")


def write_vt_ecgs(
    folder: Path,
    substrate: "Substrate",
    vts: "Sequence[Tachycardia]",
    results: "Sequence[SiteResult]",
    protocol: "Protocol",
    leads: "BodyLeads",
) -> list[dict[str, Any]]:
    """Write the ECG of every tachycardia, and tell what it shows.

    Parameters
    ----------
    folder : Path
        Made if absent; ``vt1.csv``, ``vt1.hea`` and ``vt1.dat`` (WFDB), and so on.
    substrate : Substrate
        What was paced.
    vts : sequence of Tachycardia
        From `twinheart.planning.induction.tachycardias.distinct_tachycardias`.
    results : sequence of SiteResult
        From which they were taken.
    protocol : Protocol
        With which.
    leads : BodyLeads
        From `leads_of`.

    Returns
    -------
    list of dict
        Features and files of each.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    from twinheart.cli.run import results_folder
    from twinheart.ecg import write_ecg
    from twinheart.planning.vt_ecg import tachycardia_ecg, vt_features

    of_site = {result.site.name: result for result in results}
    found = []
    for number, vt in enumerate(vts, start=1):
        say(f"twinheart: ECG of tachycardia {number} of {len(vts)}")
        ecg = tachycardia_ecg(substrate, leads, of_site[vt.sites[0]], protocol)
        files: list[Path] = []
        with results_folder(folder):
            for suffix in _SUFFIXES:
                files += write_ecg(folder / f"vt{number}{suffix}", ecg)
        features = vt_features(ecg, vt.cycle_length_ms)
        found.append(features | {"length_ms": float(ecg.t[-1]), "files": [str(f) for f in files]})
    return found
