//! Residual blocks, the stages of the two branches of the network, and the middle between them.

use burn::{module::Module, tensor::Tensor};
use equivbench_kernels::Conv3d;
use equivbench_plugin::Draw;

use crate::{
    VoxmolConfig,
    layers::{Attention, Conv, Norm, Pass, Resample},
};

/// `x → conv(drop(silu(norm(conv(silu(norm(x))))))) + shortcut(x)`.
#[derive(Module, Debug)]
pub(crate) struct Residual {
    norm1: Norm,
    conv1: Conv,
    norm2: Norm,
    conv2: Conv,
    /// Where the number of channels changes.
    shortcut: Option<Conv>,
}

impl Residual {
    pub(crate) fn new(from: usize, to: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            norm1: Norm::new(from, draw),
            conv1: Conv::new(Conv3d::Same3, from, to, draw),
            norm2: Norm::new(to, draw),
            conv2: Conv::new(Conv3d::Same3, to, to, draw),
            shortcut: (from != to).then(|| Conv::new(Conv3d::Point, from, to, draw)),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        let h = self.norm1.activate(x.clone(), &pass.inside("norm1"));
        let h = self.conv1.forward(h, Conv3d::Same3, &pass.inside("conv1"));
        let h = self.norm2.activate_dropping(h, &pass.inside("norm2"));
        let h = self.conv2.forward(h, Conv3d::Same3, &pass.inside("conv2"));
        let y = match &self.shortcut {
            Some(shortcut) => h + shortcut.forward(x, Conv3d::Point, &pass.inside("shortcut")),
            None => h + x,
        };
        pass.note(&y);
        y
    }
}

/// A residual block, with attention behind it on some levels.
#[derive(Module, Debug)]
pub(crate) struct Block {
    res: Residual,
    attn: Option<Attention>,
}

impl Block {
    fn new(from: usize, to: usize, attends: bool, draw: &mut Draw<'_>) -> Self {
        Self {
            res: Residual::new(from, to, draw),
            attn: attends.then(|| Attention::new(to, draw)),
        }
    }

    fn forward(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        let y = self.res.forward(x, &pass.inside("res"));
        let y = match &self.attn {
            Some(attention) => attention.forward(y, &pass.inside("attn")),
            None => y,
        };
        pass.note(&y);
        y
    }
}

/// One module of a branch.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are some twenty of them, and a box is no module"
)]
pub(crate) enum Stage {
    /// A block of a level.
    Block(Block),
    /// To the next level, of half the side.
    Down(Resample),
    /// To the level before, of twice the side.
    Up(Resample),
}

/// The modules of the way down.
pub(crate) fn encoder(config: &VoxmolConfig, draw: &mut Draw<'_>) -> Vec<Stage> {
    let (mut stages, mut from) = (Vec::new(), config.width);
    for (level, (width, &attends)) in config
        .widths()
        .into_iter()
        .zip(&config.attention)
        .enumerate()
    {
        for _ in 0..config.blocks {
            stages.push(Stage::Block(Block::new(from, width, attends, draw)));
            from = width;
        }
        if level + 1 < config.levels() {
            stages.push(Stage::Down(Resample::new(Conv3d::Down3, width, draw)));
        }
    }
    stages
}

/// The modules of the way up; the last block of a level has the width of the level before already, and the attention of its own.
pub(crate) fn decoder(config: &VoxmolConfig, draw: &mut Draw<'_>) -> Vec<Stage> {
    let (widths, mut stages) = (config.widths(), Vec::new());
    for level in (0..config.levels()).rev() {
        let (width, attends) = (widths[level], config.attention[level]);
        let above = if level > 0 {
            widths[level - 1]
        } else {
            config.width
        };
        stages.extend(
            (0..config.blocks).map(|_| Stage::Block(Block::new(2 * width, width, attends, draw))),
        );
        stages.push(Stage::Block(Block::new(
            width + above,
            above,
            attends,
            draw,
        )));
        if level > 0 {
            stages.push(Stage::Up(Resample::new(Conv3d::Up4, above, draw)));
        }
    }
    stages
}

/// The way down from the first grid of channels. Returns what the last module gave, and what the way up will want, itself included.
pub(crate) fn descend(
    stages: &[Stage],
    first: Tensor<5>,
    pass: &Pass<'_>,
) -> (Tensor<5>, Vec<Tensor<5>>) {
    let (mut x, mut skipped) = (first.clone(), vec![first]);
    for (number, stage) in stages.iter().enumerate() {
        x = stage.forward(x, &pass.inside(number));
        skipped.push(x.clone());
    }
    (x, skipped)
}

/// The way up: every block also sees what was skipped last of what is left.
pub(crate) fn ascend(
    stages: &[Stage],
    mut x: Tensor<5>,
    mut skipped: Vec<Tensor<5>>,
    pass: &Pass<'_>,
) -> Tensor<5> {
    for (number, stage) in stages.iter().enumerate() {
        if let Stage::Block(_) = stage {
            let skip = skipped
                .pop()
                .expect("the way down skips one grid for each block of the way up");
            x = Tensor::cat(vec![x, skip], 1);
        }
        x = stage.forward(x, &pass.inside(number));
    }
    x
}

impl Stage {
    fn forward(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        match self {
            Self::Block(block) => block.forward(x, pass),
            Self::Down(resample) => resample.forward(x, Conv3d::Down3, pass),
            Self::Up(resample) => resample.forward(x, Conv3d::Up4, pass),
        }
    }
}

/// Between the branches: two residual blocks around attention.
#[derive(Module, Debug)]
pub(crate) struct Middle {
    res1: Residual,
    attn: Attention,
    res2: Residual,
}

impl Middle {
    pub(crate) fn new(width: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            res1: Residual::new(width, width, draw),
            attn: Attention::new(width, draw),
            res2: Residual::new(width, width, draw),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        let x = self.res1.forward(x, &pass.inside("res1"));
        let x = self.attn.forward(x, &pass.inside("attn"));
        let y = self.res2.forward(x, &pass.inside("res2"));
        pass.note(&y);
        y
    }
}
