"""The report of `twinheart plan`, from the records and files of its stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinheart.ecg import Ecg

Records = Mapping[str, Mapping[str, Any]]
_NOTES = ("anatomy", "scar", "screen", "induction", "risk")


def write_plan_report(
    folder: Path,
    records: Records,
    settings: Mapping[str, Any],
    *,
    fit: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
) -> Path:
    """Write ``report.html`` into the folder of a plan.

    Parameters
    ----------
    folder : Path
        With what the stages wrote.
    records : mapping
        Record of each stage by its name.
    settings : mapping
        What made them.
    fit : mapping, optional
        Correlation of every lead of a calibrated twin, by part of the beat.
    title : str
        Heading; give it no name of a patient.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from twinheart.anatomy import heart_from_mesh
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import read_mesh
    from twinheart.report.planning import PlanningFindings, write_planning_report
    from twinheart.report.planning_words import best_strategy

    mesh, _ = read_mesh(folder / "screen.vtu")
    assert isinstance(mesh, TetMesh)  # what the stage before wrote
    best = best_strategy(records.get("ablation"))
    lesion = None
    if best is not None:
        lesions, _ = read_mesh(folder / "lesions.vtu")
        lesion = lesions.cell_fields[f"lesion_{best['strategy'].replace('-', '_')}"]
    vt = None
    if (folder / "vt.vtu").exists() and "induction" in records:
        vt = read_mesh(folder / "vt.vtu")[0].point_fields["vt_lat_ms"]
    risk = records["risk"]
    scar = list(risk.get("scar") or [])
    if "conventions" in records.get("scar", {}):  # as it was found, from the image itself
        scar = list(records["scar"]["conventions"])
    built = records.get("mesh", {})
    notes = list(built.get("remarks") or [])
    notes += [note for name in _NOTES for note in records.get(name, {}).get("notes") or []]
    found = PlanningFindings(
        screen=records["screen"],
        induction=records.get("induction"),
        ablation=records.get("ablation"),
        risk={**risk, "scar": scar},
        rvi=mesh.point_fields["rvi_ms"],
        vt=vt,
        vt_ecg=_vt_ecg(folder, records.get("induction")),
        lesion=lesion,
        calibrated=bool(risk["calibrated"]),
        fit=fit,
        notes=[*notes, *(risk.get("scar_and_ecg_notes") or [])],
        warnings=built.get("warnings") or [],
    )
    heart, _ = heart_from_mesh(mesh)
    more = {"title": title} if title else {}
    return write_planning_report(folder / "report.html", heart, found, settings=settings, **more)


def _vt_ecg(folder: Path, induction: Mapping[str, Any] | None) -> "Ecg | None":
    """ECG of the fastest tachycardia, where there is one."""
    from twinheart.cli.plan_work import VT_ECG
    from twinheart.ecg import read_ecg

    for row in (induction or {}).get("vts") or []:
        for file in (row.get("ecg") or {}).get("files") or []:
            return read_ecg(folder / VT_ECG / Path(file).name).ecg
    return None
