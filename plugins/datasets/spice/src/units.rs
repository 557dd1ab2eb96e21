//! Units of length, energy and force: constants (CODATA 2018), names that users and files write, conversion to Å, eV, eV/Å.

use equivbench_plugin::{PluginError, PluginResult};

/// One bohr in ångström.
pub const BOHR: f64 = 0.529_177_210_903;
/// One hartree in electronvolt.
pub const HARTREE: f64 = 27.211_386_245_988;
/// One kcal/mol in electronvolt: 4184 J over the Faraday constant (exact since 2019).
pub const KCAL_PER_MOL: f64 = 4184.0 / FARADAY;
/// One kJ/mol in electronvolt.
pub const KJ_PER_MOL: f64 = 1000.0 / FARADAY;
const FARADAY: f64 = 6.022_140_76e23 * 1.602_176_634e-19;

/// Factors from the numbers of a file to Å, eV and eV/Å.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Units {
    /// Å for one unit of length.
    pub length: f64,
    /// eV for one unit of energy.
    pub energy: f64,
    /// eV/Å for one unit of force.
    pub force: f64,
}

impl Units {
    /// Å, eV, eV/Å: what extended XYZ and ASE databases usually hold.
    pub const ASE: Self = Self {
        length: 1.0,
        energy: 1.0,
        force: 1.0,
    };
    /// bohr, hartree, hartree/bohr: what SPICE release files hold.
    pub const ATOMIC: Self = Self {
        length: BOHR,
        energy: HARTREE,
        force: HARTREE / BOHR,
    };
}

/// Å for one unit of this name.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn length(name: &str) -> PluginResult<f64> {
    match name.trim().to_lowercase().as_str() {
        "angstrom" | "angstroms" | "ang" | "a" | "å" => Ok(1.0),
        "bohr" | "a0" | "au" | "a.u." => Ok(BOHR),
        "nm" | "nanometer" | "nanometers" | "nanometre" | "nanometres" => Ok(10.0),
        _ => Err(unknown("length", name, "angstrom, bohr, nanometre")),
    }
}

/// eV for one unit of this name.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn energy(name: &str) -> PluginResult<f64> {
    match name.trim().to_lowercase().as_str() {
        "ev" | "electronvolt" => Ok(1.0),
        "mev" => Ok(1e-3),
        "hartree" | "hartrees" | "ha" | "eh" | "au" | "a.u." => Ok(HARTREE),
        "kcal/mol" => Ok(KCAL_PER_MOL),
        "kj/mol" => Ok(KJ_PER_MOL),
        _ => Err(unknown(
            "energy",
            name,
            "eV, meV, hartree, kcal/mol, kJ/mol",
        )),
    }
}

/// eV/Å for one unit of this name, written as energy per length: `kcal/mol/angstrom`.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn force(name: &str) -> PluginResult<f64> {
    let parts = name
        .rsplit_once('/')
        .and_then(|(e, l)| Some(energy(e).ok()? / length(l).ok()?));
    parts.ok_or_else(|| {
        unknown(
            "force",
            name,
            "eV/angstrom, hartree/bohr, kcal/mol/angstrom, kJ/mol/nanometre",
        )
    })
}

fn unknown(quantity: &str, name: &str, known: &str) -> PluginError {
    PluginError::BadRequest(format!(
        "{quantity} unit \"{name}\" is not known; use one of: {known}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hartree_is_627_and_a_half_kilocalories() {
        // 627.5094740631 is CODATA 2018; f64 rounding only.
        assert!((HARTREE / KCAL_PER_MOL - 627.509_474_063_1).abs() < 1e-8);
        assert!((force("Hartree/Bohr").unwrap() - 51.422_067_476_3).abs() < 1e-8);
        assert!((force("kJ/mol/nm").unwrap() - 1.036_426_965_6e-3).abs() < 1e-11);
    }

    #[test]
    fn a_wrong_name_lists_the_known_ones() {
        assert_eq!(
            energy("kcal").unwrap_err().to_string(),
            "energy unit \"kcal\" is not known; use one of: eV, meV, hartree, kcal/mol, kJ/mol"
        );
        assert!(force("eV").is_err() && force("eV/inch").is_err() && length("").is_err());
    }
}
