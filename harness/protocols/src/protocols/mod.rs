//! Every protocol there is: a file for each, its module and its entry here.

mod curvature;
mod dip_timing;
mod final_percent;
mod gradients;
mod landscape;
mod latents;
mod measures;
mod post;
mod rotations;
mod samples;
mod subspace;
mod throughput;
mod train_and_measure;

use crate::ProtocolInfo;
use equivbench_core::TableInfo;

/// All protocols, in the order in which they are asked.
pub const PROTOCOLS: &[ProtocolInfo] = &[
    ProtocolInfo::of::<train_and_measure::TrainAndMeasure>(),
    ProtocolInfo::of::<dip_timing::DipTiming>(),
    ProtocolInfo::of::<final_percent::FinalPercent>(),
    ProtocolInfo::of::<throughput::Throughput>(),
    ProtocolInfo::of::<samples::Samples>(),
    ProtocolInfo::of::<gradients::Gradients>(),
    ProtocolInfo::of::<curvature::Curvature>(),
    ProtocolInfo::of::<landscape::Landscape>(),
    ProtocolInfo::of::<subspace::Subspace>(),
    ProtocolInfo::of::<post::PostProcessing>(),
    ProtocolInfo::of::<rotations::Rotations>(),
    ProtocolInfo::of::<latents::Latents>(),
    ProtocolInfo::of::<measures::Measures>(),
];

/// The protocol of a name.
#[must_use]
pub fn protocol_by_name(name: &str) -> Option<&'static ProtocolInfo> {
    PROTOCOLS.iter().find(|p| p.name == name)
}

/// The tables of some protocols, in their order.
#[must_use]
pub fn tables_of(protocols: &[String]) -> Vec<TableInfo> {
    let asked = |p: &&ProtocolInfo| protocols.iter().any(|name| name == p.name);
    let all = PROTOCOLS.iter().filter(asked);
    all.flat_map(|p| (p.tables)()).collect()
}

/// The tables of all protocols.
#[must_use]
pub fn tables() -> Vec<TableInfo> {
    PROTOCOLS.iter().flat_map(|p| (p.tables)()).collect()
}
