"""The table [plan] of the case file: what `twinheart plan` starts from and how far it goes."""

from typing import Literal

from twinheart.cli.section import Section, key
from twinheart.errors import InputError


class PlanSection(Section):
    """What `twinheart plan` makes of the heart; `simulate` does not heed it."""

    image: str | None = key(
        None,
        text="Label image, contours or a tagged surface from which the heart is meshed, instead of "
        "heart.file.",
    )
    labels: str | None = key(
        None, text="Meaning of the labels, such as 'lv_pool=1,myo=2,rv_pool=3', or a preset's name."
    )
    edge: float = key(1.0, text="Mean edge length of that mesh.", unit="mm", ge=0.2, le=5.0)
    lge: str | None = key(None, text="LGE image in which scar is found.")
    lge_labels: str | None = key(None, text="Label image of the LGE.")
    lge_myocardium: int | None = key(
        None, text="Label of all myocardium in it: the heart is moved onto that."
    )
    lge_remote: int | None = key(None, text="Label of healthy, remote myocardium in it.")
    thickness: bool = key(False, text="Whether scar is found where the wall is thin, as on CT.")
    paint: str | None = key(
        None, text="File that says what scar is painted, see docs/scar_painting.md."
    )
    convention: str | None = key(
        None, text="Thresholds of core and border zone, as of 'twinheart scar'."
    )
    sites: str = key(
        "aha17", text="Where it is paced: aha17, aha19, or a CSV file of points in mm."
    )
    rvi_radius: float = key(
        5.0, text="Of the re-entry vulnerability index; none is established.", unit="mm", gt=0
    )
    preset: str = key(
        "cardiomat2025", text="Protocol of programmed stimulation; 'none': nothing is induced."
    )
    strategies: str = key("all", text="Strategies of ablation, separated by commas; all, or none.")
    radius: float = key(3.5, text="Of a lesion along the surface.", unit="mm", gt=0, le=50)
    depth: float | None = key(
        None, text="Of a lesion into the wall; absent: transmural.", unit="mm", gt=0
    )
    access: Literal["both", "endocardial", "epicardial"] = key(
        "both", text="Surfaces on which the catheter may lie."
    )
    ensemble: int = key(20, text="Hearts over which uncertainty is told; 0: none.", ge=0, le=10_000)
    seed: int = key(0, text="Of the ensemble: same seed, same intervals.", ge=0)


def check_plan(section: PlanSection) -> None:
    """Refuse a plan that contradicts itself.

    Parameters
    ----------
    section : PlanSection
        The table.

    Raises
    ------
    InputError
        If scar is to come from several sources, or a key has no effect.

    Examples
    --------
    >>> from twinheart.cli.plan_section import PlanSection, check_plan
    >>> check_plan(PlanSection(thickness=True, convention="mm:2,5"))
    """
    ways = {"lge": section.lge, "thickness": section.thickness or None, "paint": section.paint}
    given = [f"plan.{name}" for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"scar is to come from {' and '.join(given)}: name one of them.")
    needed = {
        "convention": ("plan.lge or plan.thickness", section.lge or section.thickness),
        "lge_labels": ("plan.lge", section.lge),
        "lge_myocardium": ("plan.lge_labels", section.lge_labels),
        "lge_remote": ("plan.lge_labels", section.lge_labels),
        "labels": ("plan.image", section.image),
    }
    for name, (other, there) in needed.items():
        if getattr(section, name) is not None and not there:
            raise InputError(f"plan.{name} has no effect without {other}: remove it.")
