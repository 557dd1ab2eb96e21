"""Cut the embedded sample out of a SPICE-layout HDF5 file and write it in the compact layout that src/embedded.rs reads.

usage: make_spice_mini.py IN.hdf5 OUT.bin.gz

Three of the 15 conformations of every molecule are kept: one after 500 steps at 500 K, one after 1000 steps at 500 K and one at 100 K
(see generators/gen_druglike.py), each from another of the molecule's five conformers. Numbers are copied bit by bit.

Layout, all little-endian, the whole compressed with gzip (no time stamp, so the same input gives the same bytes):
  8 bytes  magic "EQBSPICE"
  u32      length of the header in bytes
  header   JSON {level_of_theory, note, subset, molecules: [{name, smiles, conformations, atomic_numbers}]}
  arrays   positions f32 bohr, gradient f32 hartree/bohr (both [conformation][atom][3], molecule after molecule), formation energy
           f64 hartree; each array is stored as byte planes (all first bytes, then all second bytes, ...), which compresses better.
"""
import gzip
import hashlib
import json
import sys

import h5py
import numpy as np


def rows(i, m):
    """Rows of molecule number i: hot at 500 steps, hot at 1000 steps, cold, from three different conformers."""
    conformers = m // 3
    return sorted(3 * ((i + 2 * k) % conformers) + k for k in range(3))


def planes(a):
    """The bytes of an array, transposed to one plane for each byte of an element."""
    return np.frombuffer(a.tobytes(), np.uint8).reshape(-1, a.dtype.itemsize).T.tobytes()


def main(inp, out):
    f = h5py.File(inp)
    molecules, positions, gradients, energies = [], [], [], []
    for i, name in enumerate(sorted(f)):
        g = f[name]
        keep = rows(i, g["conformations"].shape[0])
        molecules.append({
            "name": name,
            "smiles": g["smiles"].asstr()[0],
            "conformations": len(keep),
            "atomic_numbers": g["atomic_numbers"][()].tolist(),
        })
        positions.append(g["conformations"][()][keep].astype("<f4").ravel())
        gradients.append(g["dft_total_gradient"][()][keep].astype("<f4").ravel())
        energies.append(g["formation_energy"][()][keep].astype("<f8"))
    header = json.dumps({
        "level_of_theory": f.attrs["level_of_theory"],
        "note": f.attrs["note"],
        "subset": g["subset"].asstr()[0],
        "molecules": molecules,
    }, separators=(",", ":")).encode()
    body = b"EQBSPICE" + np.uint32(len(header)).tobytes() + header
    for arrays in (positions, gradients, energies):
        body += planes(np.concatenate(arrays))
    with open(out, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as z:
        z.write(body)
    data = open(out, "rb").read()
    x, de, e = (np.concatenate(a).astype(np.float64) for a in (positions, gradients, energies))
    print("molecules", len(molecules), "conformations", len(e), "atoms", len(x) // 3, "bytes", len(data))
    print("sum formation_energy", repr(float(e.sum())), "sum gradient^2", repr(float((de**2).sum())), "sum positions^2", repr(float((x**2).sum())))
    print("sha256", hashlib.sha256(data).hexdigest())


main(*sys.argv[1:])
