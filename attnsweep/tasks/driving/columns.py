"""The measures that only planners have. The closed-loop score stands in `trials`, all others in `driving`."""

import functools
from typing import Literal

from attnsweep.core.columns import BOOL, FLOAT, STR, Column, View

TABLE = "driving"  # one row per trial
CLOSED_LOOP = "closed-loop score of NAVSIM 2's shape, mean over the unseen"
PARTS = "mean over test maps of the score's part"
SLICES_DRIVEN = ("turn", "interactive", "hard")  # of maps, by how the expert drives on them
SLICES = ("moving", *SLICES_DRIVEN)  # of samples
BY_MAP = (  # measures that stand in test_map_measures, too
    "amota", "amotp", "ids", "map_iou_drivable", "map_iou_border", "map_iou_divider", "min_ade6", "min_fde6",
    "miss_rate", "epa", "occ_iou_near", "occ_iou_far", "vpq_near", "vpq_far", "l2_1s", "l2_2s", "l2_3s",
    "col_1s", "col_2s", "col_3s", "at_fault", "off_road",
)  # fmt: skip
NO_COLUMNS = frozenset((  # measures of reports that are parts or precursors of a column, and none themselves
    "ap_05", "ap_1", "ap_2", "ap_4", "gt_col_1s", "gt_col_2s", "gt_col_3s", "offroad_1s", "offroad_2s",
    "offroad_3s",
))  # fmt: skip


def measure(
    name: str,
    meaning: str,
    unit: str = "fraction",
    better: Literal["higher", "lower"] | None = "higher",
    *,
    table: str = TABLE,
    per_epoch: bool = False,
    objective: bool = False,
    shown: tuple[View, ...] = (),
) -> Column:
    """A number that seeds average; by default a fraction, 0..1, of which more is better."""
    return Column(
        name,
        FLOAT,
        unit,
        f"driving: {meaning}",
        better,
        table=table,
        per_epoch=per_epoch,
        objective=objective,
        over_seeds="mean",
        shown=shown,
    )


HEADLINE = functools.partial(measure, table="trials")
LOW = functools.partial(measure, better="lower")
METRES = functools.partial(measure, unit="m", better="lower")

COLUMNS = (
    HEADLINE("val_score", f"{CLOSED_LOOP} validation maps, 0..1", per_epoch=True,
             objective=True, shown=("closing", "pick", "curve")),
    LOW("val_at_fault", "share of validation maps with an at-fault collision", per_epoch=True),
    METRES("val_l2_3s", "distance of plan and expert after 3 s on validation samples", per_epoch=True,
           shown=("curve",)),
    HEADLINE("test_score", f"{CLOSED_LOOP} test maps, 0..1", shown=("closing", "pick")),
    HEADLINE("test_score_low", "its 95 % interval by bootstrap over maps or recorded samples, below"),
    HEADLINE("test_score_high", "the same, above"),
    Column("test_map_scores", STR, "", "driving: the score on each test map, in their order, as a JSON list",
           table=TABLE),
    Column("test_map_measures", STR, "", "driving: the measures of UniAD's table 2 on each test map or scene "
           "by itself, as a JSON object of lists; their spread gives intervals", table=TABLE),
    measure("test_score_turn", "test_score of maps on which the route turns"),
    measure("test_score_interactive", "of maps on which the expert must stop"),
    measure("test_score_hard", "of maps where constant velocity soon fails"),
    measure("test_no_collision", f"{PARTS} for no collision at fault"),
    measure("test_direction", f"{PARTS} for driving in the direction of traffic"),
    measure("test_made_progress", f"{PARTS} for making progress and holding nobody up"),
    measure("test_ttc", f"{PARTS} for time to collision"),
    measure("test_progress", f"{PARTS} for progress against the expert's, since the handover"),
    measure("test_lane_keeping", f"{PARTS} for lane keeping"),
    measure("test_comfort", f"{PARTS} for comfort"),
    LOW("test_at_fault", "share of test maps with an at-fault collision"),
    LOW("test_off_road", "share of test maps on which it leaves the road"),
    LOW("test_ran_red", "share of test maps on which it runs a red light"),
    LOW("test_rough", "share of test maps with a ride that is rough in most of its seconds"),
    LOW("test_impeding", "share of the time in which it holds up traffic without need"),
    LOW("test_wrong_route", "share of test maps on which it leaves its route"),
    measure("test_success", "share of test maps with score > 0, progress >= 0.8"),
    LOW("test_lost", "share of plans that cannot be driven (NaN, far off)"),
    LOW("test_finish_s", "median time to the end of the route, where it is reached", "s"),
    measure("test_score_4s", "the score of 4 s plans among recorded traffic"),
    *(METRES(f"test_l2_{k}s", f"distance of plan and expert after {k} s") for k in (1, 2, 3, 4)),
    *(METRES(f"test_l2avg_{k}s", f"the same, averaged over the steps up to {k} s") for k in (1, 2, 3)),
    *(METRES(f"test_l2_3s_{part}", f"test_l2_3s of {part} samples") for part in SLICES),
    *(LOW(f"test_col_{k}s", f"share of plans that hit anyone up to {k} s") for k in (1, 2, 3, 4)),
    *(LOW(f"test_col_4s_{part}", f"test_col_4s of {part} samples") for part in SLICES),
    LOW("test_gt_col_4s", "the expert's own; above 0 the data is wrong"),
    LOW("test_offroad_4s", "share of plans that leave the road up to 4 s"),
    measure("test_ap", "detection AP, mean over 0.5, 1, 2, 4 m (nuScenes)"),
    measure("test_f1_2m", "detection F1 at 2 m"),
    measure("test_f1_threshold", "the confidence from which on a detection counts there", better=None),
    measure("test_amota", "average multi-object tracking accuracy at 2 m"),
    METRES("test_amotp", "average multi-object tracking precision, at most 2 m"),
    measure("test_idf1", "F1 of identities kept over frames"),
    LOW("test_ids", "identity switches on the test part, at the threshold of the highest MOTA", unit=""),
    *(measure(f"test_map_iou_{kind}", f"map IoU, {kind}") for kind in ("drivable", "border", "divider")),
    *(
        measure(f"test_line_f1_{name}", f"F1 of map lines at {metres} m Chamfer")
        for name, metres in (("05", 0.5), ("1", 1), ("15", 1.5))
    ),
    *(
        measure(f"test_{name}_{area}", f"occupancy {meaning}, {area}")
        for name, meaning in (("occ_iou", "IoU over 4 s"), ("vpq", "video panoptic quality"))
        for area in ("near", "far")
    ),
    METRES("test_min_ade6", "minADE of 6 motion forecasts of agents that were detected"),
    METRES("test_min_fde6", "minFDE of the same"),
    LOW("test_miss_rate", "share whose best forecast strays by more than 2 m"),
    measure("test_epa", "end-to-end prediction accuracy, (TP - FP / 2) / agents"),
    measure("test_score_blank", "test_score with a sensor that sees nothing", better=None),
    Column("shortcut", BOOL, "", "driving: whether the score falls by less than 0.05 without the sensor",
           table=TABLE),
    measure("highway_env_score", "the score in highway-env's environments, by measure --highway-env"),
)  # fmt: skip
