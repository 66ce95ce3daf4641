"""The stages of `twinheart plan`: what each depends on, how it is done, what it writes."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinheart.cli import substrate as shared
from twinheart.cli.terminal import say
from twinheart.errors import InputError, MeshError

if TYPE_CHECKING:
    import numpy as np

    from twinheart.calibration.twin_file import StoredTwin
    from twinheart.cli.case import Case
    from twinheart.planning.induction.protocols import Protocol
    from twinheart.planning.pacing_sites import PacingSite
    from twinheart.planning.substrate import Substrate

NONE = "none"
_HOLES = (
    "the mesh has holes where the wall is thinner than its edge, and waves go round what is whole "
    "in the patient: take a smaller plan.edge"
)
VT_ECG = "vt_ecg"  # folder of the ECGs of tachycardias
_MOST_VTS = 100  # whose files are watched
STAGES = ("mesh", "anatomy", "scar", "calibration", "screen", "induction", "ablation", "risk",
          "report")  # fmt: skip
_FILES = ("image", "lge", "lge_labels", "paint", "sites")


class PlanWork:
    """A case, its folder, and what stages share.

    Parameters
    ----------
    case : Case
        A checked case.
    folder : Path
        Where records and files go; exists when it is run.
    workers : int
        Sites that are paced at once.

    Raises
    ------
    InputError
        If a name in the table [plan] is unknown, or the case contradicts itself.
    """

    def __init__(self, case: "Case", folder: Path, workers: int):
        from twinheart.cli.ablate import chosen_strategies
        from twinheart.cli.build import is_calibrated
        from twinheart.cli.plan_section import check_plan
        from twinheart.cli.stages import Stages
        from twinheart.planning.induction.protocols import named_protocol

        self.case, self.folder, self.workers = case, folder, workers
        self.section = case.plan
        # what is wrong is said before the long work
        check_plan(self.section)
        self.protocol: Protocol | None = None
        if self.section.preset != NONE:
            self.protocol = named_protocol(self.section.preset)
        self.strategies = chosen_strategies(self.section.strategies)
        self.is_twin = is_calibrated(case)
        if self.is_twin and (self.section.image or self.scar_source or case.calibration.ecg):
            raise InputError(
                f"heart.file is the calibrated twin {case.heart.file}, which has its own heart, "
                "scar and ECG: leave out plan.image, scar and calibration.ecg, or give a mesh."
            )
        wanted = {
            "scar": not self.is_twin,
            "mesh": not self.is_twin,
            "anatomy": not self.is_twin,
            "calibration": case.calibration.ecg is not None,
            "induction": self.protocol is not None,
            "ablation": bool(self.strategies),
        }
        self.stages = Stages(folder, [name for name in STAGES if wanted.get(name, True)])

    @property
    def scar_source(self) -> str | None:
        """What scar comes from."""
        section = self.section
        return section.lge or section.paint or ("thickness" if section.thickness else None)

    @property
    def twin_file(self) -> Path | None:
        """The calibrated twin, where there is one."""
        if self.is_twin:
            return Path(self.case.heart.file)
        if self.case.calibration.ecg is not None:
            return self.folder / "calibration" / "twin.h5"
        return None

    @cached_property
    def stored(self) -> "StoredTwin | None":
        """That twin as its file has it."""
        from twinheart.calibration.twin_file import load_twin

        return None if self.twin_file is None else load_twin(self.twin_file)

    @cached_property
    def substrate(self) -> "Substrate":
        """Built once for all stages that are done now."""
        if self.twin_file is not None:
            return shared.substrate_of(twin=self.twin_file)
        return shared.substrate_of(case=self.folder / "substrate.toml")

    @cached_property
    def sites(self) -> "tuple[PacingSite, ...]":
        """Where it is paced."""
        return shared.sites_of(self.section.sites, self.substrate)

    def run(self) -> dict[str, dict[str, Any]]:
        """Do all stages that are not done; their records."""
        records: dict[str, dict[str, Any]] = {}
        for name in self.stages.names:
            records[name] = getattr(self, f"_{name}")(records)
        return records

    def _mesh(self, _) -> dict[str, Any]:
        section, heart = self.section, self.case.heart
        file = heart.file
        inputs = [section.image] if section.image else []
        if not section.image and file != "demo" and not file.startswith("slab:"):
            inputs = [file]
        return self.stages.run(
            "mesh", self._make_mesh, inputs=inputs, files=("mesh.vtu",),
            settings={"heart": None if section.image else heart.model_dump(exclude={"file"}),
                      "file": None if inputs else file, "labels": section.labels,
                      "edge": section.edge},
        )  # fmt: skip

    def _make_mesh(self) -> dict[str, Any]:
        out = self.folder / "mesh.vtu"
        if self.section.image:
            from twinheart.cli.mesh import build_mesh_file

            record = build_mesh_file(
                [self.section.image], out, edge=self.section.edge, labels=self.section.labels
            )
            return record | {"warnings": [_HOLES] if record["lost_walls"] else []}
        from twinheart.anatomy import mesh_of_heart
        from twinheart.cli.build import build_heart
        from twinheart.mesh.io import write_mesh

        mesh = mesh_of_heart(build_heart(self.case))
        write_mesh(out, mesh)
        return {"source": self.case.heart.file, "n_nodes": mesh.n_nodes, "n_tets": mesh.n_tets}

    def _anatomy(self, _) -> dict[str, Any]:
        from twinheart.cli.anatomy import Angles, build_anatomy
        from twinheart.mesh.io import read_mesh, write_mesh

        heart = self.case.heart
        angles = Angles(heart.alpha_endo, heart.alpha_epi, -45.0, 45.0)

        def make() -> dict[str, Any]:
            mesh, out = self.folder / "mesh.vtu", self.folder / "heart.vtu"
            try:
                record, _ = build_anatomy(mesh, out, angles, report=False)
            except MeshError as error:  # no ventricles: planned as it is, sites by their points
                write_mesh(out, read_mesh(mesh)[0])
                return {"notes": [f"no fibres, coordinates and segments are made: {error}"]}
            # of reading it nothing is told: the plan wrote this mesh itself
            rule = "fibres by the Laplace rule" if record["fibres"] == "rule" else "fibres as given"
            return record | {"notes": [rule]}

        return self.stages.run(
            "anatomy", make, settings={"angles": list(angles)}, after=("mesh",),
            files=("heart.vtu",),
        )  # fmt: skip

    def _scar(self, _) -> dict[str, Any]:
        section = self.section
        inputs = [x for x in (section.lge, section.paint, section.lge_labels) if x]
        keys = ("thickness", "convention", "lge_myocardium", "lge_remote")
        case = {"cells": self.case.cells, "conduction": self.case.conduction,
                "scar": self.case.scar}  # fmt: skip
        return self.stages.run(
            "scar", self._make_scar, inputs=inputs, after=("anatomy",),
            files=("scarred.vtu", "substrate.toml"),
            settings={key: getattr(section, key) for key in keys}
            | {name: table.model_dump() for name, table in case.items()},
        )  # fmt: skip

    def _make_scar(self) -> dict[str, Any]:
        from twinheart.cli.calibration_section import CalibrationSection
        from twinheart.cli.case_text import case_toml
        from twinheart.cli.run import write_text
        from twinheart.cli.scar import PAINT, THICKNESS, find_scar

        section, heart = self.section, self.folder / "heart.vtu"
        record: dict[str, Any] = {"source": "as the mesh has it"}
        file = heart
        if self.scar_source is not None:
            file = self.folder / "scarred.vtu"
            source = section.lge or (PAINT if section.paint else THICKNESS)
            found, notes = find_scar(
                source, heart, file,
                spec=Path(section.paint) if section.paint else None,
                convention=section.convention,
                labels=Path(section.lge_labels) if section.lge_labels else None,
                myocardium=section.lge_myocardium, remote=section.lge_remote, report=False,
            )  # fmt: skip
            record = found | {"notes": notes}
        plain = self._case_of(file, calibration=CalibrationSection())
        write_text(self.folder / "substrate.toml", case_toml(plain))
        return record

    def _case_of(self, heart: Path, **more: Any) -> "Case":
        """The case with another heart, and without what earlier stages have done."""
        from twinheart.cli.case import HeartSection, PlanSection

        made = HeartSection(file=str(heart.resolve()), length_unit="mm")
        return self.case.model_copy(update={"heart": made, "plan": PlanSection(), **more})

    def _calibration(self, _) -> dict[str, Any]:
        from twinheart.cli.calibrate import run_calibration

        case, folder = self.case, self.folder / "calibration"
        scarred = self.folder / "scarred.vtu"
        heart = scarred if self.scar_source is not None else self.folder / "heart.vtu"
        output = case.output.model_copy(update={"folder": str(folder)})

        def make() -> dict[str, Any]:
            return run_calibration(self._case_of(heart, output=output), folder, resume=True)

        section = case.calibration.model_dump(exclude={"ecg"})
        inputs = [x for x in (case.calibration.ecg, *self._ecg_files()) if x]
        settings = {"calibration": section, "purkinje": case.purkinje.model_dump()}
        return self.stages.run(
            "calibration", make, settings=settings, inputs=inputs, after=("scar",),
            files=("calibration/twin.h5",),
        )  # fmt: skip

    @property
    def _source(self) -> tuple[tuple[str, ...], list[Path]]:
        """Stage and file behind the substrate."""
        if self.is_twin:
            return (), [Path(self.case.heart.file)]
        return ("calibration" if self.case.calibration.ecg else "scar",), []

    def _where(self) -> tuple[tuple[str, ...], list[Path]]:
        after, inputs = self._source
        named = self.section.sites in shared.AHA
        return after, inputs if named else [*inputs, Path(self.section.sites)]

    def _screen(self, _) -> dict[str, Any]:
        from twinheart.cli.screen import screening_record, write_maps
        from twinheart.planning.circuits.screening import screen

        def make() -> dict[str, Any]:
            found = screen(
                self.substrate, self.sites, radius=self.section.rvi_radius,
                progress=shared.SiteProgress("screening"),
            )  # fmt: skip
            (self.folder / "screen_circuits.vtp").unlink(missing_ok=True)
            write_maps(self.folder / "screen.vtu", self.substrate, found)
            return screening_record(self.substrate, found)

        after, inputs = self._where()
        return self.stages.run(
            "screen", make, after=after, inputs=inputs,
            settings={"sites": self.section.sites, "radius": self.section.rvi_radius},
            files=("screen.vtu", "screen_circuits.vtp"),
        )  # fmt: skip

    def _induction(self, _) -> dict[str, Any]:
        from twinheart.cli.induce import induction_record, remarks_on
        from twinheart.cli.vt_ecg import leads_of, write_vt_ecgs
        from twinheart.planning.induction.many_sites import induce_sites
        from twinheart.planning.induction.tachycardias import distinct_tachycardias

        protocol = self.protocol
        assert protocol is not None

        def make() -> dict[str, Any]:
            results = induce_sites(
                self.substrate.problem, self.substrate.restitution, self.sites, protocol,
                file=self._results(), workers=self.workers,
                progress=shared.SiteProgress("pacing sites"),
            )  # fmt: skip
            for remark in remarks_on(results, protocol):
                say(f"twinheart: note: {remark}")
            vts = distinct_tachycardias(self.substrate, results, protocol)
            _write_vt(self.folder / "vt.vtu", self.substrate, results, protocol)
            for old in (self.folder / VT_ECG).glob("vt*.*"):
                old.unlink()
            leads = leads_of(self.substrate.heart, None, None, stored=self.stored, case=self.case)
            ecgs = None
            if leads is not None:
                ecgs = write_vt_ecgs(
                    self.folder / VT_ECG, self.substrate, vts, results, protocol, leads
                )
            return induction_record(self.substrate, results, protocol, vts, ecgs)

        after, inputs = self._where()
        ecgs = (f"{VT_ECG}/vt{k}.csv" for k in range(1, _MOST_VTS + 1))
        return self.stages.run(
            "induction", make, after=after, inputs=[*inputs, *self._ecg_files()],
            files=("vt.vtu", *ecgs),
            settings={"sites": self.section.sites, "protocol": repr(protocol),
                      "electrodes": self.case.ecg.electrodes},
        )  # fmt: skip

    def _ecg_files(self) -> list[str]:
        """Files of electrodes and lead field."""
        given = self.case.ecg
        files = [given.lead_field] if given.lead_field else []
        return files + ([] if given.electrodes in ("standard", NONE) else [given.electrodes])

    def _results(self) -> Path:
        """Results of pacing; those of another heart or protocol are forgotten."""
        from twinheart.planning.induction.many_sites import induce_sites

        file = self.folder / "induction.jsonl"
        assert self.protocol is not None
        try:
            induce_sites(
                self.substrate.problem, self.substrate.restitution, (), self.protocol, file=file
            )
        except InputError:
            file.unlink()
        return file

    def _ablation(self, _) -> dict[str, Any]:
        import math

        from twinheart.cli.ablate import comparison_record, retest_progress, write_lesions
        from twinheart.planning.ablation.operation import Operation
        from twinheart.planning.ablation.reach import Catheter
        from twinheart.planning.ablation.stimulation import stimulation_test
        from twinheart.planning.ablation.table import PLAN, compare_strategies

        section = self.section
        depth = math.inf if section.depth is None else section.depth
        tested = self.protocol if PLAN in self.strategies else None

        def make() -> dict[str, Any]:
            catheter = Catheter(section.radius, depth, section.access)
            operation = Operation(self.substrate, self.sites, catheter)
            test = None
            if tested is not None:
                test = stimulation_test(tested, workers=self.workers, progress=retest_progress)
            found = compare_strategies(
                operation, self.strategies, induced=test, say=lambda x: say(f"twinheart: {x}")
            )
            write_lesions(self.folder / "lesions.vtu", operation, found.outcomes)
            name = None if tested is None else tested.name
            return comparison_record(operation, found) | {"induction": name}

        keys = ("sites", "radius", "depth", "access")
        settings = {key: getattr(section, key) for key in keys} | {"strategies": self.strategies}
        settings |= {} if tested is None else {"protocol": repr(tested)}
        after, inputs = self._where()
        return self.stages.run(
            "ablation", make, after=after, inputs=inputs, settings=settings, files=("lesions.vtu",)
        )

    def _risk(self, _) -> dict[str, Any]:
        from twinheart.cli.heart_risk import ensemble_of, risk_record, scar_and_ecg
        from twinheart.planning.risk.measures import assess_risk

        section, protocol = self.section, self.protocol
        lge = None if section.lge is None else Path(section.lge)
        ecg = None if self.case.calibration.ecg is None else Path(self.case.calibration.ecg)

        def make() -> dict[str, Any]:
            drawn = ensemble_of(
                self.substrate, self.stored, self.twin_file, section.ensemble, section.seed
            )
            found = assess_risk(
                self.substrate, self.sites, drawn, protocol, workers=self.workers,
                file=self._members(),
                sites_file=None if protocol is None else self._results(),
                progress=shared.SiteProgress("members of the ensemble"),
            )  # fmt: skip
            record = risk_record(self.substrate, found)
            record |= scar_and_ecg(self.substrate, self.stored, lge=lge, ecg=ecg)
            return record | {"seed": section.seed}

        keys = ("sites", "ensemble", "seed")
        settings = {key: getattr(section, key) for key in keys} | {"protocol": repr(protocol)}
        after, inputs = self._where()
        return self.stages.run(
            "risk", make, after=after, settings=settings,
            inputs=[*inputs, *(x for x in (lge, ecg) if x)],
        )  # fmt: skip

    def _members(self) -> Path:
        """Members of the ensemble; those of another heart are forgotten."""
        from twinheart.planning.risk.measures import stored_members

        file = self.folder / "members.json"
        try:
            stored_members(file, self.substrate, self.sites)
        except InputError:
            file.unlink()
        return file

    def _report(self, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
        from twinheart.cli.plan_report import write_plan_report
        from twinheart.cli.run import provenance

        def make() -> dict[str, Any]:
            settings = {
                **provenance(), "seed": self.section.seed,
                "plan": self.section.model_dump(exclude_none=True),
            }  # fmt: skip
            # paths may name a patient: files by their names only
            settings["plan"] = {k: Path(v).name if k in _FILES else v
                                for k, v in settings["plan"].items()}  # fmt: skip
            fit = None if self.stored is None else self.stored.facts["correlation"]
            page = write_plan_report(self.folder, records, settings, fit=fit, title=self.case.title)
            return {"report": str(page)}

        return self.stages.run(
            "report", make, files=("report.html",),
            settings={"title": self.case.title, "plan": self.section.model_dump()},
            after=[name for name in self.stages.names if name != "report"],
        )  # fmt: skip


def _write_vt(path: Path, substrate: "Substrate", results, protocol: "Protocol") -> None:
    """Write the activation over one cycle of the first tachycardia; nothing where there is none."""
    from twinheart.anatomy import mesh_of_heart
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import write_mesh
    from twinheart.planning.induction.one_site import activation_train

    path.unlink(missing_ok=True)
    induced = [r for r in results if r.induced and r.cycle_length is not None]
    if not induced:
        return
    first = min(induced, key=lambda result: result.cycle_length)
    train = activation_train(substrate.problem, substrate.restitution, first, protocol)
    mesh = mesh_of_heart(substrate.heart)
    lat = last_cycle(train.lat[: mesh.n_nodes], first.cycle_length)
    fields = mesh.point_fields | {"vt_lat_ms": lat}
    write_mesh(path, TetMesh(mesh.points, mesh.tets, fields, mesh.cell_fields))


def last_cycle(lat: "np.ndarray", cycle: float) -> "np.ndarray":
    """Activation over the last cycle of a train.

    Parameters
    ----------
    lat : (node, beat) array
        Activations [ms]; NaN where there is none.
    cycle : float
        Length of the cycle [ms].

    Returns
    -------
    (node,) array
        After the beginning of that cycle [ms]; NaN where nothing is activated in it.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.cli.plan_work import last_cycle
    >>> last_cycle(np.array([[0.0, 300.0], [100.0, 400.0], [50.0, np.nan]]), 300.0).tolist()
    [200.0, 300.0, nan]
    """
    import numpy as np

    start = np.nanmax(lat) - cycle
    latest = np.fmax.reduce(lat, axis=1)
    return np.where(latest > start, latest - start, np.nan)
