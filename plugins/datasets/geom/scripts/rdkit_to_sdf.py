#!/usr/bin/env python3
"""Writes RDKit's pickles as SDF, which the dataset `geom` reads.

    rdkit_to_sdf.py rdkit_folder drugs.sdf.gz                 GEOM: the folder with summary_drugs.json (or summary_qm9.json)
    rdkit_to_sdf.py train_data.pickle train.sdf.gz            MiDi: a list of (SMILES, [Mol, ...])
    rdkit_to_sdf.py one_molecule.pickle one.sdf.gz            GEOM: the pickle of one molecule

Needs RDKit (pip install rdkit). The title of each structure is the SMILES under which the source lists it. The first --conformers
conformers of each molecule are written in the order of the source (default 5, as VoxMol; 0 writes all). Coordinates have four decimals.
A pickle can run any code when it is opened: convert files that you trust only.
"""

import argparse
import gzip
import json
import pickle
import sys
from pathlib import Path

try:
    from rdkit import Chem, RDLogger
except ImportError:
    sys.exit("RDKit is missing: pip install rdkit")


def conformers_of_entry(entry):
    """The molecules of a GEOM entry, one conformer each, lowest energy first as in the file."""
    return [conformer["rd_mol"] for conformer in entry["conformers"]]


def geom_folder(folder, summary_name):
    """SMILES and a function that loads its molecules, in the order of the summary."""
    summaries = sorted(folder.glob(summary_name))
    if len(summaries) != 1:
        found = ", ".join(s.name for s in summaries) or "none"
        sys.exit(f"{folder}: one summary file is needed, found: {found}; choose with --summary")
    with open(summaries[0]) as file:
        summary = json.load(file)
    for smiles, about in summary.items():
        path = about.get("pickle_path")
        if path is not None:
            yield smiles, lambda path=path: conformers_of_entry(load(folder / path))


def load(path):
    with open(path, "rb") as file:
        return pickle.load(file)


def pickle_file(path):
    """SMILES and a function that gives its molecules."""
    try:
        content = load(path)
    except (pickle.UnpicklingError, EOFError, UnicodeDecodeError, ImportError, AttributeError, IndexError, OSError) as error:
        sys.exit(f"{path} cannot be read as a pickle ({type(error).__name__}: {error})")
    if isinstance(content, dict) and "conformers" in content:
        smiles = content.get("smiles") or Chem.MolToSmiles(Chem.RemoveHs(content["conformers"][0]["rd_mol"]))
        yield smiles, lambda: conformers_of_entry(content)
        return
    if not isinstance(content, list) or not all(isinstance(e, (tuple, list)) and len(e) == 2 for e in content[:10]):
        sys.exit(f"{path}: neither a list of (SMILES, [Mol, ...]) nor an entry of GEOM")
    for smiles, molecules in content:
        molecules = molecules if isinstance(molecules, (tuple, list)) else [molecules]
        yield smiles, lambda molecules=molecules: molecules


def write_molecule(out, smiles, molecules, most):
    """Writes the first conformers of a molecule; how many. A molecule may hold several conformers itself."""
    written = 0
    for molecule in molecules:
        for conformer in molecule.GetConformers():
            if most and written == most:
                return written
            # Aromatic bonds are written as such where no Kekulé form can be found: only the atoms matter here.
            try:
                block = Chem.MolToMolBlock(molecule, confId=conformer.GetId())
            except (Chem.KekulizeException, ValueError):
                block = Chem.MolToMolBlock(molecule, confId=conformer.GetId(), kekulize=False)
            lines = block.split("\n", 1)[1]
            out.write(f"{smiles}\n{lines}$$$$\n")
            written += 1
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path, help="file to write: .sdf or .sdf.gz")
    parser.add_argument("--conformers", type=int, default=5, help="first so many of each molecule; 0 for all (default: 5)")
    parser.add_argument("--summary", default="summary_*.json", help="name of the summary file of a GEOM folder")
    arguments = parser.parse_args()
    if arguments.conformers < 0:
        parser.error("--conformers must not be negative")
    if arguments.out.exists():
        sys.exit(f"{arguments.out} is there already; remove it or choose another name")
    RDLogger.DisableLog("rdApp.*")
    source = arguments.source
    entries = geom_folder(source, arguments.summary) if source.is_dir() else pickle_file(source)
    # Renamed when it is complete, so that half a file is never taken for a whole one.
    partial = arguments.out.with_name("." + arguments.out.name + ".partial")
    molecules = conformers = 0
    failed = []
    opener = gzip.open if arguments.out.suffix == ".gz" else open
    with opener(partial, "wt") as out:
        for smiles, load_molecules in entries:
            try:
                written = write_molecule(out, smiles, load_molecules(), arguments.conformers)
            except (OSError, KeyError, EOFError, pickle.UnpicklingError) as error:
                failed.append(f"{smiles}: {type(error).__name__}: {error}")
                continue
            molecules += written > 0
            conformers += written
            if molecules % 10000 == 0 and written:
                print(f"{molecules} molecules, {conformers} conformers", file=sys.stderr)
    partial.rename(arguments.out)
    print(f"{arguments.out}: {conformers} conformers of {molecules} molecules")
    if failed:
        print(f"{len(failed)} molecules could not be read, the first: {failed[0]}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
