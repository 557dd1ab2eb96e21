//! A loss split into its twirled and its equivariance part, for the squared error and for any convex loss.

/// The losses between a prediction and its target that can be decomposed: convex and not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointLoss {
    /// Mean of the squared components; `L = L_mean + L_equiv` exactly.
    Mse,
    /// Mean of the absolute components.
    Mae,
    /// Mean over rows (atoms) of the L2 norm of the row.
    L2,
}

impl PointLoss {
    /// Reads `mse`, `mae` or `l2`.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse(name: &str) -> Result<Self, crate::CoreError> {
        match name {
            "mse" => Ok(Self::Mse),
            "mae" => Ok(Self::Mae),
            "l2" => Ok(Self::L2),
            _ => Err(crate::CoreError::Unknown {
                what: "measured loss",
                name: name.into(),
                known: "mse, mae, l2".into(),
            }),
        }
    }

    /// Name in suites and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mse => "mse",
            Self::Mae => "mae",
            Self::L2 => "l2",
        }
    }

    /// The loss summed over components (over rows for [`L2`](Self::L2)).
    #[must_use]
    pub fn sum(self, prediction: &[f64], target: &[f64], width: usize) -> f64 {
        let differences = prediction.iter().zip(target).map(|(p, y)| p - y);
        match self {
            Self::Mse => differences.map(|d| d * d).sum(),
            Self::Mae => differences.map(f64::abs).sum(),
            Self::L2 => {
                let squares: Vec<f64> = differences.map(|d| d * d).collect();
                squares
                    .chunks(width.max(1))
                    .map(|row| row.iter().sum::<f64>().sqrt())
                    .sum()
            }
        }
    }

    /// The derivative of [`sum`](Self::sum) with respect to each component of the prediction. Where a norm has a corner, 0.
    #[must_use]
    pub fn slope(self, prediction: &[f64], target: &[f64], width: usize) -> Vec<f64> {
        let mut differences: Vec<f64> = prediction.iter().zip(target).map(|(p, y)| p - y).collect();
        match self {
            Self::Mse => differences.iter_mut().for_each(|d| *d *= 2.0),
            Self::Mae => differences
                .iter_mut()
                .for_each(|d| *d = if *d == 0.0 { 0.0 } else { d.signum() }),
            Self::L2 => {
                for row in differences.chunks_mut(width.max(1)) {
                    let norm = row.iter().map(|d| d * d).sum::<f64>().sqrt();
                    if norm > 0.0 {
                        row.iter_mut().for_each(|d| *d /= norm);
                    }
                }
            }
        }
        differences
    }

    /// What the sum is divided by.
    #[must_use]
    pub fn denominator(self, components: usize, width: usize) -> f64 {
        match self {
            Self::Mse | Self::Mae => components as f64,
            Self::L2 => (components / width.max(1)) as f64,
        }
    }
}

/// The two terms of a loss under random rotation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossDecomposition {
    /// `L_mean`: loss of the twirled prediction.
    pub twirled: f64,
    /// `L_equiv`: what rotating adds.
    pub equivariance: f64,
}

impl LossDecomposition {
    /// Decomposes given twisted predictions, plug-in: the slow and obvious version.
    #[must_use]
    pub fn of(loss: PointLoss, twisted: &[Vec<f64>], target: &[f64], width: usize) -> Self {
        let n = twisted.len() as f64;
        let twirled: Vec<f64> = (0..target.len())
            .map(|i| twisted.iter().map(|z| z[i]).sum::<f64>() / n)
            .collect();
        let over = loss.denominator(target.len(), width);
        let total = twisted
            .iter()
            .map(|z| loss.sum(z, target, width))
            .sum::<f64>()
            / n
            / over;
        let of_twirled = loss.sum(&twirled, target, width) / over;
        Self {
            twirled: of_twirled,
            equivariance: total - of_twirled,
        }
    }

    /// `L`.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.twirled + self.equivariance
    }

    /// `100 · L_equiv / L`; 0 where there is no loss at all.
    #[must_use]
    pub fn percent(&self) -> f64 {
        if self.total() == 0.0 {
            0.0
        } else {
            100.0 * self.equivariance / self.total()
        }
    }

    /// `ε = L_equiv / L_mean`.
    #[must_use]
    pub fn loss_ratio(&self) -> f64 {
        self.equivariance / self.twirled
    }
}
