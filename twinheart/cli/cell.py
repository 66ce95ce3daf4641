"""`twinheart cell`: the ionic models, alone: list, info, run, restitution, import."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinheart.cell import AbstractCellModel, CellTrace
    from twinheart.tissue import CableRestitution

cell = typer.Typer(help="Ionic cell models: list, info, run, restitution, import.")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Name = Annotated[str, typer.Option("--cell", help="Name of a model, or a CellML or mmt file.")]
_Bcl = Annotated[float, typer.Option(help="Basic cycle length, in ms.")]
_Dt = Annotated[float | None, typer.Option(help="Time step, in ms; by default the model's.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="Parameter, e.g. g_kr=0.1; may be repeated.")
]
_Scale = Annotated[list[str] | None, typer.Option(help="Channel, e.g. i_kr=0.5; may be repeated.")]
_Condition = Annotated[str | None, typer.Option(help="Disease, e.g. chronic-af.")]
_Drug = Annotated[
    list[str] | None,
    typer.Option(help="Drug and multiple of its Cmax, e.g. dofetilide:4; may be repeated."),
]
_Plot = Annotated[Path | None, typer.Option(help="Picture to write: PNG, SVG or PDF.")]


@cell.command("list")
def list_models(as_json: _Json = False) -> None:
    """Every model of the library: states, parameters, recommended time step, paper."""
    from twinheart.cell import get_model, model_names, parameter_names

    rows = []
    for name in model_names():
        model = get_model(name)
        rows.append(
            {
                "name": name,
                "states": 1 + len(model.state_names),
                "parameters": len(parameter_names(model)),
                "dt_ms": model.dt,
                "doi": model.reference.removeprefix("doi:"),
                "description": _summary(model),
            }
        )
    emit({"models": rows}, as_json=as_json)


@cell.command()
def info(
    name: Annotated[str, typer.Argument(help="Name of a model, or a CellML or mmt file.")],
    as_json: _Json = False,
) -> None:
    """Parameters, state variables and channels of one model, with units."""
    import dataclasses

    from twinheart.cell import Gate, get_model, parameter_names

    model = get_model(name)
    units = {f.name: f.metadata.get("unit", "1") for f in dataclasses.fields(model)}
    _, rates = model.rates(model.initial_vm(), model.initial_state())
    emit(
        {
            "name": model.name,
            "description": _summary(model),
            "doi": model.reference.removeprefix("doi:"),
            "dt_ms": model.dt,
            "stimulus": {
                "amplitude_a_per_f": model.stimulus.amplitude,
                "duration_ms": model.stimulus.duration,
            },
            "v_start_mv": float(model.initial_vm()),
            "states": [
                {
                    "name": state,
                    "start": value,
                    "unit": model.units.get(state, "1"),
                    "stepped_by": "Rush-Larsen" if isinstance(rate, Gate) else "Euler",
                }
                for (state, value), rate in zip(model.initial.items(), rates, strict=True)
            ],
            "channels": [
                {"channel": channel, "parameter": parameter}
                for channel, parameter in model.channels.items()
            ],
            "parameters": [
                {"name": p, "value": float(getattr(model, p)), "unit": units[p]}
                for p in parameter_names(model)
            ],
        },
        as_json=as_json,
    )


def _summary(model: "AbstractCellModel") -> str:
    return (inspect.getdoc(type(model)) or "").split("\n", 1)[0]


@cell.command()
def run(
    name: _Name,
    bcl: _Bcl = 1000.0,
    beats: Annotated[int, typer.Option(help="Beats; the last is measured.", min=1)] = 10,
    to_limit_cycle: Annotated[
        bool, typer.Option("--limit-cycle", help="Pace to the limit cycle first.")
    ] = False,
    dt: _Dt = None,
    parameters: _Set = None,
    scale: _Scale = None,
    condition: _Condition = None,
    drug: _Drug = None,
    plot: _Plot = None,
    csv: Annotated[Path | None, typer.Option(help="Table of the last beat to write.")] = None,
    as_json: _Json = False,
) -> None:
    """Pace a cell and measure its last action potential."""
    from twinheart.cell import limit_cycle, pace_cell

    model = _modified(name, parameters, scale, condition, drug)
    dt = model.dt if dt is None else dt
    record: dict[str, Any] = {"name": model.name, "bcl_ms": bcl, "beats": beats, "dt_ms": dt}
    if to_limit_cycle:
        cycle = limit_cycle(model, bcl, dt=dt)
        model = cycle.model
        record |= {
            "limit_cycle_converged": bool(cycle.converged),
            "limit_cycle_beats": int(cycle.beats),
        }
    trace = pace_cell(model, n_beats=beats, keep_beats=min(beats, 2), bcl=bcl, dt=dt)
    _refuse_blow_up(model, trace, bcl, dt)
    record |= _measured(model, trace, bcl, dt, beats)
    files = []
    last = -(round(bcl / dt) + 1)
    calcium = trace.states.get("ca_i")
    if plot is not None:
        from twinheart.report import write_action_potential

        ca_i = None if calcium is None else calcium[last:]
        title = f"{model.name}, beat {beats} at {bcl:g} ms"
        files.append(
            write_action_potential(plot, trace.t[last:], trace.vm[last:], ca_i, title=title)
        )
    if csv is not None:
        files.append(_write_csv(csv, trace, last))
    emit(record | {"files": files}, as_json=as_json)


@cell.command()
def restitution(
    name: _Name,
    protocol: Annotated[str, typer.Option(help="s1s2 or dynamic.")] = "s1s2",
    bcl: Annotated[float, typer.Option(help="S1 cycle length, in ms.")] = 1000.0,
    cv: Annotated[
        float | None,
        typer.Option(help="Velocity on a cable, in m/s: its restitution is measured too."),
    ] = None,
    dt: _Dt = None,
    parameters: _Set = None,
    scale: _Scale = None,
    condition: _Condition = None,
    drug: _Drug = None,
    plot: _Plot = None,
    as_json: _Json = False,
) -> None:
    """Duration, and conduction velocity, of a beat after shorter and shorter intervals."""
    from twinheart.cell import (
        dynamic_restitution,
        effective_refractory_period,
        s1s2_restitution,
    )

    if protocol not in ("s1s2", "dynamic"):
        raise InputError(f"--protocol is '{protocol}', expected 's1s2' or 'dynamic'.")
    model = _modified(name, parameters, scale, condition, drug)
    if protocol == "s1s2":
        curve = s1s2_restitution(model, bcl, dt=dt)
    else:
        curve = dynamic_restitution(model, dt=dt)
    record: dict[str, Any] = {"name": model.name, "protocol": protocol}
    if protocol == "s1s2":
        refractory = effective_refractory_period(model, bcl, dt=dt)
        record |= {
            "s1_ms": bcl,
            "apd90_ms": float(refractory.apd90),
            "erp_ms": float(refractory.erp),
            "apd_over_erp": float(refractory.apd_over_erp),
        }
    di, apd = curve.di.mean(axis=1), curve.apd.mean(axis=1)
    record |= {
        "max_slope": float(curve.max_slope),
        "interval_ms": curve.interval,
        "di_ms": di,
        "apd_ms": apd,
        "captured": curve.captured.all(axis=1).tolist(),
    }
    if protocol == "dynamic":
        record["alternans_ms"] = curve.alternans
    velocities = None
    if cv is not None:
        cable = _on_a_cable(model, protocol, cv, bcl, dt)
        velocities = {"cable": (cable.di, cable.cv)}
        record["cable"] = {
            "interval_ms": cable.interval,
            "di_ms": cable.di,
            "cv_m_per_s": cable.cv,
            "apd_ms": cable.apd,
            "blocked": cable.blocked.tolist(),
        }
    files = []
    if plot is not None:
        from twinheart.report import write_restitution

        title = f"{model.name}, {protocol}"
        curves = {"cell": (di, apd)}
        files.append(write_restitution(plot, curves, velocities=velocities, title=title))
    emit(record | {"files": files}, as_json=as_json)


def _on_a_cable(
    model: "AbstractCellModel", protocol: str, velocity: float, s1: float, dt: float | None
) -> "CableRestitution":
    from twinheart.cell import limit_cycle
    from twinheart.tissue import cv_restitution, dynamic_cv_restitution

    paced = limit_cycle(model, s1, dt=dt).model
    options: dict[str, Any] = {"velocity": velocity, "dt": model.dt if dt is None else dt}
    if protocol == "s1s2":
        return cv_restitution(paced, s1, **options)
    return dynamic_cv_restitution(paced, **options)


@cell.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="CellML 1.0/1.1 or Myokit mmt file.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; else the file's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Python module to write; else NAME.py here.")
    ] = None,
    membrane: Annotated[
        str | None, typer.Option(help="Variable of the membrane potential, if it hides.")
    ] = None,
    stimulus: Annotated[
        str | None, typer.Option(help="Variable of the stimulus current, if it hides.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Turn a CellML or Myokit file into a readable Python module of a cell model."""
    from twinheart.cell import Gate, parameter_names
    from twinheart.cell.cellml import import_cell, write_module

    options: dict[str, Any] = {"name": name, "membrane": membrane, "stimulus": stimulus}
    model = cast("Callable[[], AbstractCellModel]", import_cell(file, **options))()
    out = Path(model.name.replace("-", "_") + ".py") if out is None else out
    write_module(file, out, **options)
    _, rates = model.rates(model.initial_vm(), model.initial_state())
    emit(
        {
            "name": model.name,
            "doi": model.reference.removeprefix("doi:"),
            "states": 1 + len(model.state_names),
            "gates": [s for s, r in zip(model.state_names, rates, strict=True) if type(r) is Gate],
            "parameters": len(parameter_names(model)),
            "channels": dict(model.channels),
            "dt_ms": model.dt,
            "files": [out],
        },
        as_json=as_json,
    )


def _modified(
    name: str,
    parameters: list[str] | None,
    scale: list[str] | None,
    condition: str | None,
    drug: list[str] | None,
) -> "AbstractCellModel":
    """The model with what the options change, checked like the table [cells] of a case file."""
    from twinheart.cli.build import build_cell
    from twinheart.cli.case import check_case

    cells: dict[str, Any] = {"model": name}
    cells["parameters"] = dict(_pair(text, "=", "--set g_kr=0.1") for text in parameters or [])
    cells["channels"] = dict(_pair(text, "=", "--scale i_kr=0.5") for text in scale or [])
    doses = [_pair(text, ":", "--drug dofetilide:4") for text in drug or []]
    cells["drugs"] = [{"name": drug, "cmax": dose} for drug, dose in doses]
    if condition is not None:
        cells["condition"] = condition
    return build_cell(check_case({"cells": cells}).cells)


def _pair(text: str, mark: str, example: str) -> tuple[str, float]:
    name, _, value = text.partition(mark)
    try:
        return name.strip(), float(value)
    except ValueError:
        raise InputError(f"'{text}' is not a name and a number, expected e.g. {example}.") from None


def _measured(
    model: "AbstractCellModel", trace: "CellTrace", bcl: float, dt: float, beats: int
) -> dict[str, Any]:
    """Biomarkers of the last beat, and how it differs from the one before."""
    import numpy as np

    from twinheart.cell import (
        beat_durations,
        biomarkers,
        calcium_transient,
        early_afterdepolarisations,
        net_charge,
    )

    last = slice(-(round(bcl / dt) + 1), None)
    t, vm = trace.t[last], trace.vm[last]
    states = {state: values[last] for state, values in trace.states.items()}
    found = biomarkers(t, vm)
    record = {
        "apd90_ms": float(found.apd90),
        "apd50_ms": float(found.apd50),
        "apd30_ms": float(found.apd30),
        "triangulation_ms": float(found.triangulation),
        "v_rest_mv": float(found.v_rest),
        "v_peak_mv": float(found.v_peak),
        "dvdt_max": float(found.dvdt_max),
    }
    durations = np.asarray(beat_durations(trace.t, trace.vm, bcl))
    answered = np.isfinite(durations)
    if not answered[-2:].all():
        unanswered = int((~answered).sum())
        say(
            f"twinheart: note: {unanswered} of the last {len(durations)} stimuli gave no action "
            f"potential: a cycle of {bcl:g} ms is shorter than the refractory period, or the "
            "stimulus is too weak"
        )
    record["answered"] = bool(answered[-1])
    if len(durations) > 1:
        record["alternans_ms"] = abs(float(durations[-1] - durations[-2]))
    record["ead_count"] = int(early_afterdepolarisations(t, vm).count)
    if "ca_i" in states:
        transient = calcium_transient(t, states["ca_i"])
        record |= {
            "ca_diastolic_um": 1e3 * float(transient.diastolic),
            "ca_peak_um": 1e3 * float(transient.peak),
            "ca_duration90_ms": float(transient.duration90),
        }
    if "i_nal" in model.channels:
        record["qnet_uc_per_uf"] = float(net_charge(model, t, vm, states))
    return record


def _refuse_blow_up(model: "AbstractCellModel", trace: "CellTrace", bcl: float, dt: float) -> None:
    """Say which time step works where the wanted one does not."""
    import numpy as np

    from twinheart.cell import pace_cell

    def sound(trace: "CellTrace") -> bool:
        return bool((np.abs(np.asarray(trace.vm)) < 500.0).all())  # NaN is not smaller either

    if sound(trace):
        return
    shorter = dt
    for _ in range(6):
        shorter /= 2.0
        if sound(pace_cell(model, bcl=bcl, dt=shorter)):
            advice = f"{shorter:g} ms works for the first beat"
            break
    else:
        advice = f"nor does it with {shorter:g} ms; check the parameters"
    raise ModelError(f"{model.name} breaks down with a time step of {dt:g} ms; {advice}.")


def _write_csv(path: Path, trace: "CellTrace", last: int) -> Path:
    import numpy as np

    from twinheart.cli.run import write_text

    columns = {"t_ms": trace.t, "vm_mv": trace.vm, **trace.states}
    table = np.stack([np.asarray(values, float)[last:] for values in columns.values()], axis=1)
    table[:, 0] -= table[0, 0]
    rows = (",".join(f"{value:.7g}" for value in row) for row in table)
    write_text(path, "\n".join([",".join(columns), *rows]) + "\n")
    return path
