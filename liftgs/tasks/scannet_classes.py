"""The classes of ScanNet's instance benchmarks: ids, names and frequency groups. Knows no scores and no files.

Walls and floors are not instances, so of ScanNet's 20 classes 18 remain and of ScanNet200's 200 there remain 198.

Source: ScanNet's `evaluate_semantic_instance.py` and ScanNet200's (Rozenberszki et al. 2022) `scannet200_constants.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from liftgs.tasks.instances import VOID

_SCANNET20 = """
    3 cabinet; 4 bed; 5 chair; 6 sofa; 7 table; 8 door; 9 window; 10 bookshelf; 11 picture; 12 counter; 14 desk;
    16 curtain; 24 refrigerator; 28 shower curtain; 33 toilet; 34 sink; 36 bathtub; 39 otherfurniture
"""

_SCANNET200 = {
    "head": """
    2 chair; 4 table; 5 door; 6 couch; 7 cabinet; 8 shelf; 9 desk; 10 office chair; 11 bed; 13 pillow; 14 sink;
    15 picture; 16 window; 17 toilet; 18 bookshelf; 19 monitor; 21 curtain; 22 book; 23 armchair; 24 coffee table;
    26 box; 27 refrigerator; 28 lamp; 29 kitchen cabinet; 31 towel; 32 clothes; 33 tv; 34 nightstand; 35 counter;
    36 dresser; 38 stool; 40 plant; 41 ceiling; 42 bathtub; 48 backpack; 51 tv stand; 52 whiteboard;
    55 shower curtain; 56 trash can; 57 closet; 58 stairs; 62 stove; 69 board; 70 washing machine; 71 mirror;
    72 copier; 74 sofa chair; 75 file cabinet; 78 shower; 86 blinds; 89 blackboard; 96 radiator; 97 recycling bin;
    99 wardrobe; 110 clothes dryer; 125 bathroom stall; 128 shower wall; 159 kitchen counter; 161 doorframe;
    540 mailbox; 1163 object; 1164 bathroom vanity; 1165 closet wall; 1171 stair rail
""",
    "common": """
    39 cushion; 44 end table; 45 dining table; 46 keyboard; 47 bag; 49 toilet paper; 50 printer; 54 blanket;
    59 microwave; 63 shoe; 64 computer tower; 65 bottle; 66 bin; 67 ottoman; 68 bench; 73 basket; 76 fan; 77 laptop;
    80 person; 82 paper towel dispenser; 84 oven; 87 rack; 90 piano; 93 suitcase; 95 rail; 98 container;
    101 telephone; 104 stand; 105 light; 106 laundry basket; 107 pipe; 116 seat; 120 column; 121 bicycle;
    122 ladder; 131 jacket; 132 storage bin; 134 coffee maker; 136 dishwasher; 139 machine; 140 mat; 141 windowsill;
    154 bulletin board; 156 fireplace; 165 mini fridge; 177 water cooler; 188 shower door; 191 pillar; 193 ledge;
    213 furniture; 214 cart; 250 decoration; 276 closet door; 283 vacuum cleaner; 323 dish rack; 342 range hood;
    609 projector screen; 748 divider; 1156 bathroom counter; 1166 laundry hamper; 1167 bathroom stall door;
    1168 ceiling light; 1169 trash bin; 1173 bathroom cabinet; 1178 structure; 1183 storage organizer;
    1189 potted plant; 1191 mattress
""",
    "tail": """
    79 paper; 88 plate; 100 soap dispenser; 102 bucket; 103 clock; 112 guitar; 115 toilet paper holder; 118 speaker;
    130 cup; 138 paper towel roll; 145 bar; 148 toaster; 155 ironing board; 157 soap dish;
    163 toilet paper dispenser; 166 fire extinguisher; 168 ball; 169 hat; 170 shower curtain rod; 180 paper cutter;
    185 tray; 195 toaster oven; 202 mouse; 208 toilet seat cover dispenser; 221 storage container; 229 scale;
    230 tissue box; 232 light switch; 233 crate; 242 power outlet; 261 sign; 264 projector; 286 candle; 300 plunger;
    304 stuffed animal; 312 headphones; 325 broom; 331 guitar case; 356 dustpan; 370 hair dryer; 392 water bottle;
    395 handicap bar; 399 purse; 408 vent; 417 shower floor; 488 water pitcher; 562 bowl; 570 paper bag;
    572 alarm clock; 581 music stand; 776 laundry detergent; 1170 dumbbell; 1172 tube; 1174 cd case;
    1175 closet rod; 1176 coffee kettle; 1179 shower head; 1180 keyboard piano; 1181 case of water bottles;
    1182 coat rack; 1184 folded chair; 1185 fire alarm; 1186 power strip; 1187 calendar; 1188 poster; 1190 luggage
""",
}


@dataclass(frozen=True)
class BenchmarkClasses:
    """What a benchmark evaluates, in its own order, which is that of the ids. A class's place is its index elsewhere.

    Attributes:
        ids: `nyu40id` of ScanNet's label table (`scannetv2-labels.combined.tsv`) for the 18, its `id` for the 198.
        names: as the benchmark spells them; also what is asked for.
        groups: "head", "common" or "tail", by how often the class occurs; "" where the benchmark has no groups.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, label_ids: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        """Place of each id, `VOID` for what is not evaluated."""
        ids = np.array(self.ids)
        place = np.searchsorted(ids, label_ids).clip(max=len(ids) - 1)
        return np.where(ids[place] == label_ids, place, VOID)

    def by_group(self) -> dict[str, Int[np.ndarray, " k"]]:
        """Group -> places of its classes, the frequent ones first; empty where the benchmark has no groups."""
        groups = np.array(self.groups)
        return {group: np.flatnonzero(groups == group) for group in ("head", "common", "tail") if group in self.groups}


def _classes(listed: Mapping[str, str]) -> BenchmarkClasses:
    """From "id name; id name" of each group."""
    entries = [(entry.split(maxsplit=1), group) for group, text in listed.items() for entry in text.split(";")]
    rows = sorted((int(number), " ".join(name.split()), group) for (number, name), group in entries)
    return BenchmarkClasses(*zip(*rows, strict=True))


SCANNET20 = _classes({"": _SCANNET20})
SCANNET200 = _classes(_SCANNET200)
