"""Cut the embedded sample out of a SPICE-layout HDF5 file and write it as a safetensors document.

usage: make_spice_mini.py IN.hdf5 OUT.safetensors

Three of the 15 conformations of every molecule are kept: one after 500 steps at 500 K, one after 1000 steps at 500 K and one at 100 K
(see generators/gen_druglike.py), each from another of the molecule's five conformers. Numbers are copied bit by bit. README.md lists
the arrays of the document.
"""
import hashlib
import json
import sys

import h5py
import numpy as np
from safetensors.numpy import save_file


def rows(i, m):
    """Rows of molecule number i: hot at 500 steps, hot at 1000 steps, cold, from three different conformers."""
    conformers = m // 3
    return sorted(3 * ((i + 2 * k) % conformers) + k for k in range(3))


def main(inp, out):
    f = h5py.File(inp)
    molecules, species, positions, gradients, energies = [], [], [], [], []
    for i, name in enumerate(sorted(f)):
        g = f[name]
        keep = rows(i, g["conformations"].shape[0])
        species.append(g["atomic_numbers"][()].astype(np.uint8))
        molecules.append({
            "name": name,
            "smiles": g["smiles"].asstr()[0],
            "atoms": len(species[-1]),
            "conformations": len(keep),
        })
        positions.append(g["conformations"][()][keep].astype("<f4").reshape(-1, 3))
        gradients.append(g["dft_total_gradient"][()][keep].astype("<f4").reshape(-1, 3))
        energies.append(g["formation_energy"][()][keep].astype("<f8"))
    about = json.dumps({
        "level_of_theory": f.attrs["level_of_theory"],
        "note": f.attrs["note"],
        "subset": g["subset"].asstr()[0],
        "molecules": molecules,
    }, separators=(",", ":"))
    save_file({
        "positions_bohr": np.concatenate(positions),
        "gradient_hartree_per_bohr": np.concatenate(gradients),
        "formation_energy_hartree": np.concatenate(energies),
        "atomic_numbers": np.concatenate(species),
    }, out, metadata={"about": about})
    data = open(out, "rb").read()
    x, de, e = (np.concatenate(a).astype(np.float64) for a in (positions, gradients, energies))
    print("molecules", len(molecules), "conformations", len(e), "atoms", len(x), "bytes", len(data))
    print("sum formation_energy", repr(float(e.sum())), "sum gradient^2", repr(float((de**2).sum())), "sum positions^2", repr(float((x**2).sum())))
    print("sha256", hashlib.sha256(data).hexdigest())


main(*sys.argv[1:])
