//! How fast gradient descent would remove a part of the loss (science §8): with the weights `w` of the gradient `g` on the nodes `θ` of the
//! Hessian and the rate `η`, after `T` steps the quadratic model of the part has fallen by
//! `½ |g|² Σ w [1 − (1 − η θ)^(2T)] / θ`, of `½ |g|² Σ w / θ` in all.

/// An eigenvalue, or a Ritz value, with the share of the squared gradient that lies along it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// `θ`.
    pub value: f64,
    /// `w`, a fraction.
    pub weight: f64,
}

/// Steps of gradient descent after which shares of what can be removed are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decay {
    /// Half of it.
    pub half: Option<f64>,
    /// 90 percent.
    pub most: Option<f64>,
    /// 99 percent.
    pub nearly_all: Option<f64>,
    /// `½ |g|² Σ w / θ`: what can be removed, in units of the loss.
    pub removable: Option<f64>,
    /// Fraction of the squared gradient on nodes that were left out: negative, below the floor, or above `1 / η`.
    pub left_out: f64,
}

/// Decay under gradient descent with the rate `1 / largest`, `largest` being the largest eigenvalue of the total loss, of a part whose
/// squared gradient is `square`. Nodes outside `(floor, largest]` are left out.
#[must_use]
pub fn decay(nodes: &[Node], square: f64, floor: f64, largest: f64) -> Decay {
    // A node that equals the largest but for rounding is the largest.
    let inside = |n: &&Node| n.value > floor && n.value <= largest * (1.0 + 1e-9);
    let kept: Vec<Node> = nodes.iter().filter(inside).copied().collect();
    let weight: f64 = kept.iter().map(|n| n.weight).sum();
    let all: f64 = nodes.iter().map(|n| n.weight).sum();
    let left_out = if all > 0.0 { 1.0 - weight / all } else { 0.0 };
    let total: f64 = kept.iter().map(|n| n.weight / n.value).sum();
    if !(total > 0.0 && total.is_finite() && largest > 0.0) {
        return Decay {
            left_out,
            ..Decay::default()
        };
    }
    let removed = |steps: f64| {
        let of = |n: &Node| {
            let rest = (1.0 - n.value / largest).max(0.0);
            // 1 − rest^(2T), without cancellation where little decays.
            let log = if rest > 0.0 {
                (-n.value / largest).ln_1p()
            } else {
                f64::NEG_INFINITY
            };
            let gone = if steps == 0.0 {
                0.0
            } else {
                -(2.0 * steps * log).exp_m1()
            };
            n.weight / n.value * gone
        };
        kept.iter().map(of).sum::<f64>() / total
    };
    Decay {
        half: steps_to(0.5, &removed),
        most: steps_to(0.9, &removed),
        nearly_all: steps_to(0.99, &removed),
        removable: Some(0.5 * square * total),
        left_out,
    }
}

/// Where an increasing function of whole steps that ends at 1 reaches a share, with a straight line between steps: between them the model
/// has no meaning, and a node at the largest eigenvalue would be gone after any fraction of one.
fn steps_to(share: f64, removed: &dyn Fn(f64) -> f64) -> Option<f64> {
    let (mut low, mut high) = (0.0, 1.0);
    while removed(high) < share {
        (low, high) = (high, 2.0 * high);
        // Beyond 2^53 whole numbers are not told apart.
        if high > 9e15 {
            return None;
        }
    }
    while high - low > 1.0 {
        let middle = ((low + high) / 2.0).floor();
        if removed(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    let (before, after) = (removed(low), removed(high));
    Some(low + (share - before) / (after - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_decays_as_a_power() {
        let node = Node {
            value: 0.1,
            weight: 1.0,
        };
        let found = decay(&[node], 4.0, 1e-12, 1.0);
        // 1 − 0.9^(2T) = share, with a line between the steps on both sides.
        let gone = |steps: f64| 1.0 - 0.9f64.powf(2.0 * steps);
        for (got, share) in [
            (found.half, 0.5),
            (found.most, 0.9),
            (found.nearly_all, 0.99),
        ] {
            let got = got.unwrap();
            let (a, b) = (gone(got.floor()), gone(got.ceil()));
            assert!((a + (b - a) * got.fract() - share).abs() < 1e-12);
        }
        assert_eq!(found.removable, Some(0.5 * 4.0 * 10.0));
    }

    #[test]
    fn descent_step_by_step_removes_as_much() {
        let nodes =
            [(1.0, 0.2), (0.3, 0.5), (0.02, 0.3)].map(|(value, weight)| Node { value, weight });
        let found = decay(&nodes, 1.0, 1e-12, 1.0);
        // Gradient descent on ½ Σ θ x², from the x that has these parts of the gradient, θ x.
        let mut x: Vec<f64> = nodes.iter().map(|n| n.weight.sqrt() / n.value).collect();
        let loss = |x: &[f64]| -> f64 {
            x.iter()
                .zip(&nodes)
                .map(|(x, n)| 0.5 * n.value * x * x)
                .sum()
        };
        let start = loss(&x);
        assert!((found.removable.unwrap() / start - 1.0).abs() < 1e-12);
        let mut steps = 0;
        while loss(&x) > 0.1 * start {
            x.iter_mut()
                .zip(&nodes)
                .for_each(|(x, n)| *x -= n.value * *x);
            steps += 1;
        }
        let most = found.most.unwrap();
        assert!(
            most <= f64::from(steps) && most > f64::from(steps - 1),
            "{most} {steps}"
        );
    }

    #[test]
    fn nodes_outside_are_left_out_and_counted() {
        let nodes = [(1.0, 0.5), (-0.5, 0.3), (1e-15, 0.1), (2.0, 0.1)]
            .map(|(value, weight)| Node { value, weight });
        let found = decay(&nodes, 1.0, 1e-12, 1.0);
        assert!((found.left_out - 0.5).abs() < 1e-15);
        // What is left is gone after one step.
        assert_eq!(found.half, Some(0.5));
        assert_eq!(found.removable, Some(0.25));
        assert_eq!(decay(&nodes[1..3], 1.0, 1e-12, 1.0).half, None);
    }
}
