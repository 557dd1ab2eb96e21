//! Which chains are kept: length, resolved residues, experiment, resolution, letters (§8 of Proteina's preparation of the archive).

use crate::{
    entry::{Entry, EntryChain},
    options::{Experiments, Selection},
    residues::is_standard,
};
use serde::{Deserialize, Serialize};

/// Why a chain was left out: the first reason that [`Selection::refuses`] comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Reason {
    Method,
    MethodUnknown,
    Resolution,
    ResolutionUnknown,
    Short,
    Long,
    Unresolved,
    Letters,
    Duplicate,
}

impl Reason {
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Method => {
                "chains of entries by another method than diffraction or electron microscopy (experiments = \"any\" keeps them)"
            }
            Self::MethodUnknown => {
                "chains of files that state no method (experiments = \"diffraction-or-em\" keeps them)"
            }
            Self::Resolution => "chains of entries with a resolution above max_resolution",
            Self::ResolutionUnknown => {
                "chains of entries that state a method but no resolution (experiments = \"any\" keeps them)"
            }
            Self::Short => "chains not longer than min_length",
            Self::Long => "chains not shorter than max_length",
            Self::Unresolved => "chains with fewer residues with a C-alpha than min_resolved",
            Self::Letters => {
                "chains with other residues than the 20 standard ones (standard_only = false keeps them)"
            }
            Self::Duplicate => {
                "chains with the sequence and the coordinates of one before them: copies in other files or formats"
            }
        }
    }
}

impl Selection {
    /// Why a chain of an entry is left out, `None` if it is kept.
    pub(crate) fn refuses(&self, entry: &Entry, chain: &EntryChain) -> Option<Reason> {
        self.refuses_entry(entry)
            .or_else(|| self.refuses_chain(chain))
    }

    fn refuses_entry(&self, entry: &Entry) -> Option<Reason> {
        if entry.resolution.is_some_and(|r| r > self.max_resolution) {
            return Some(Reason::Resolution);
        }
        match (self.experiments, entry.methods.is_empty()) {
            (Experiments::Any, _) | (Experiments::DiffractionOrEm, true) => None,
            (Experiments::Stated, true) => Some(Reason::MethodUnknown),
            _ if !entry.methods.iter().any(|m| is_diffraction_or_em(m)) => Some(Reason::Method),
            _ if entry.resolution.is_none() => Some(Reason::ResolutionUnknown),
            _ => None,
        }
    }

    /// Checks of a chain alone.
    pub(crate) fn refuses_chain(&self, chain: &EntryChain) -> Option<Reason> {
        let sequence = chain.stated.as_deref().unwrap_or(&chain.sequence);
        let (length, resolved) = (sequence.len() as u64, chain.positions.len() as u64);
        let letters = || sequence.bytes().chain(chain.sequence.bytes());
        match () {
            () if length <= self.min_length => Some(Reason::Short),
            () if length >= self.max_length => Some(Reason::Long),
            () if resolved < self.min_resolved => Some(Reason::Unresolved),
            () if self.standard_only && !letters().all(is_standard) => Some(Reason::Letters),
            () => None,
        }
    }
}

/// X-ray, neutron, fibre, powder diffraction; single particles, tomography, electron crystallography.
fn is_diffraction_or_em(method: &str) -> bool {
    [
        "DIFFRACTION",
        "ELECTRON MICROSCOPY",
        "ELECTRON CRYSTALLOGRAPHY",
        "CRYO-EM",
    ]
    .iter()
    .any(|known| method.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, options::Settings};

    fn selection(change: impl FnOnce(&mut Options)) -> Selection {
        let mut options = Options {
            path: Some("x".into()),
            ..Options::default()
        };
        change(&mut options);
        Settings::new(options).unwrap().selection
    }

    fn chain(residues: usize, stated: Option<usize>) -> EntryChain {
        EntryChain {
            sequence: "A".repeat(residues),
            positions: vec![[0.0; 3]; residues],
            numbers: vec![1; residues],
            stated: stated.map(|n| "A".repeat(n)),
            ..EntryChain::default()
        }
    }

    fn refused(
        entry: &Entry,
        chain: &EntryChain,
        change: impl FnOnce(&mut Options),
    ) -> Option<Reason> {
        selection(change).refuses(entry, chain)
    }

    #[test]
    fn lengths_are_strict_and_those_of_the_sample_where_they_are_stated() {
        let alone = |residues, stated| refused(&Entry::default(), &chain(residues, stated), |_| ());
        assert_eq!(
            [50, 51, 255, 256].map(|n| alone(n, None)),
            [Some(Reason::Short), None, None, Some(Reason::Long)]
        );
        assert_eq!(
            [(45, 51), (39, 51), (250, 256), (60, 50)].map(|(n, s)| alone(n, Some(s))),
            [
                None,
                Some(Reason::Unresolved),
                Some(Reason::Long),
                Some(Reason::Short)
            ]
        );
    }

    #[test]
    fn methods_and_resolutions_follow_the_option() {
        let entry = |method: &str, resolution| Entry {
            methods: if method.is_empty() {
                vec![]
            } else {
                vec![method.to_owned()]
            },
            resolution,
            ..Entry::default()
        };
        let cases = [
            (entry("X-RAY DIFFRACTION", Some(5.0)), [None, None, None]),
            (
                entry("X-RAY DIFFRACTION", Some(5.01)),
                [Some(Reason::Resolution); 3],
            ),
            (
                entry("ELECTRON MICROSCOPY", None),
                [
                    Some(Reason::ResolutionUnknown),
                    Some(Reason::ResolutionUnknown),
                    None,
                ],
            ),
            (
                entry("SOLUTION NMR", None),
                [Some(Reason::Method), Some(Reason::Method), None],
            ),
            (entry("", None), [None, Some(Reason::MethodUnknown), None]),
        ];
        for (entry, expected) in cases {
            let found = ["diffraction-or-em", "stated", "any"]
                .map(|e| refused(&entry, &chain(100, None), |o| o.experiments = e.into()));
            assert_eq!(found, expected, "{:?}", entry.methods);
        }
    }

    #[test]
    fn letters_of_the_sample_count() {
        let mut with = chain(100, Some(100));
        with.stated = Some(format!("{}X", "A".repeat(99)));
        assert_eq!(
            refused(&Entry::default(), &with, |_| ()),
            Some(Reason::Letters)
        );
        assert_eq!(
            refused(&Entry::default(), &with, |o| o.standard_only = false),
            None
        );
    }
}
