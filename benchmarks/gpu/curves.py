"""Compares the curves of short runs on a device with those of the same runs on the processor: curves.py FOLDER DEVICE."""

import csv
import sys
from pathlib import Path

folder, device = Path(sys.argv[1]), sys.argv[2]
summary = []
for model in ("escaip", "proteina", "voxmol"):
    try:
        ours, theirs = (list(csv.DictReader(open(folder / f"{model}-{place}" / "curve.csv"))) for place in (device, "cpu"))
    except OSError as error:
        print(f"curves,{model},no table,{error}")
        continue
    most = {}
    for a, b in zip(ours, theirs):
        for column in ("loss_total", "loss_equiv"):
            off = abs(float(a[column]) / float(b[column]) - 1)
            print(f"curves,{model},step {a['step']},{a.get('flow_time') or '-'},{column},{float(a[column]):.6g},{float(b[column]):.6g},{off:.1e}")
            most[column] = max(most.get(column, 0.0), off)
    summary.extend(f"curves,{model},{len(ours)} rows,largest difference,{column},{off:.1e}" for column, off in most.items())
print("\n".join(summary))
