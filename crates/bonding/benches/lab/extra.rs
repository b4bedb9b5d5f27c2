//! The packets that a bond sends to repair losses, from its own counters.

use anyhow::Context as _;
use bonding_lab::Host;
use serde_json::Value;

use crate::carrier::Running;
use crate::measure::Figures;

/// Packets that one side accepted from its device, and packets that it sent in addition.
#[derive(Debug, Clone, Copy)]
struct Side {
    packets: u64,
    extra: u64,
}

/// Both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent([Side; 2]);

impl Sent {
    /// The counts since the start; `None` for a carrier that is not the bond.
    pub(crate) fn so_far(running: &Running<'_>) -> anyhow::Result<Option<Self>> {
        let Some(bond) = &running.bond else { return Ok(None) };
        let (client, server) = (bond.status(Host::Client)?, bond.status(Host::Server)?);
        Ok(Some(Self([side(&client)?, side(&server)?])))
    }

    /// Additional packets since `before`, in percent of the accepted ones, of the side with more.
    pub(crate) fn put_extra(
        running: &Running<'_>,
        before: Option<Self>,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let (Some(before), Some(after)) = (before, Self::so_far(running)?) else { return Ok(()) };
        let share = |(before, after): (Side, Side)| {
            let packets = after.packets.saturating_sub(before.packets).max(1);
            after.extra.saturating_sub(before.extra) as f64 * 1e2 / packets as f64
        };
        let most = before.0.into_iter().zip(after.0).map(share).fold(0.0, f64::max);
        figures.insert("extra_percent".to_owned(), most);
        Ok(())
    }
}

fn side(status: &Value) -> anyhow::Result<Side> {
    let count = |name: &str| {
        status.pointer(name).and_then(Value::as_u64).with_context(|| format!("no {name} in the status"))
    };
    let extra = count("/recovery/resent")? + count("/recovery/copies")? + count("/recovery/fec_sent")?;
    Ok(Side { packets: count("/io/tun_packets_in")?, extra })
}
