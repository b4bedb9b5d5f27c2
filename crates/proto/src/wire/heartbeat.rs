//! The heartbeat's payload, version 1: the measurement of a link in both directions.
//!
//! ```text
//!  0  version (1)        1  flags          2  priority      3  role
//!  4  epoch              4 B   the sender's run; changes when the sender restarts
//!  8  echo epoch         4 B   the run whose heartbeat is echoed
//! 12  stamp              8 B   the sender's clock when sending, µs
//! 20  echo stamp         8 B   the stamp of the newest heartbeat received on this link
//! 28  echo delay         4 B   time since that heartbeat was received, µs
//! 32  datagrams sent     8 B   on this link in this epoch, this one included
//! 40  echo sent          8 B   the echoed heartbeat's "datagrams sent"
//! 48  echo received      8 B   how many of those had arrived when that heartbeat arrived
//! 56  receive ceiling    4 B   kbit/s: the most that the sender asks to receive on this link;
//!                              0: no limit
//! 60  failed             4 B   links that the sender counts as failed: bit 0 is link 0;
//!                              absent if no link has failed and no flows are wanted
//! 64  flows              1 B   UDP flows of this link that the sender asks for: bits 0-3 how many,
//!                              bit 7: the peer is to use as many; 0 or absent where the sender
//!                              does not ask
//! 65  retired            4 B   links that the sender retired: bit 0 is link 0; absent if there are
//!                              none
//! ```
//! RTT = now − echo stamp − echo delay. The one-way delays contain the clock offset, which is the
//! same on all links: forward = (stamp − echo delay) − echo stamp, backward = now − stamp. Loss of
//! the datagrams sent = 1 − Δ echo received / Δ echo sent. Role: 0 primary, 1 secondary, 2 backup,
//! 3 never; an unknown role of a later version is read as backup. A reader ignores bytes behind the
//! known fields: later versions may append.

use super::Reader;
use crate::discard::Discard;
use crate::units::BitRate;
use crate::view::LinkRole;

/// Bytes of the payload if no link has failed.
pub const HEARTBEAT_BYTES: u16 = 60;
/// Bytes of the payload if at least one link has failed.
pub const HEARTBEAT_FAILED_BYTES: u16 = 64;
/// Bytes of the payload that asks for UDP flows.
pub const HEARTBEAT_FLOWS_BYTES: u16 = 65;
/// Bytes of the payload that tells of retired links.
pub const HEARTBEAT_RETIRED_BYTES: u16 = 69;

const VERSION: u8 = 1;
const FLAG_ECHO: u8 = 0x01;
const FLAG_PROVEN: u8 = 0x02;
const FLAG_AT_ONCE: u8 = 0x04;
const FLAG_RESENDS: u8 = 0x08;
const FLAG_PARTIAL: u8 = 0x10;
const FLAG_INDIRECT: u8 = 0x20;
const FLAG_STREAMS: u8 = 0x40;
const FLAG_FIGURES: u8 = 0x80;

const FLOWS_COUNT: u8 = 0x0f;
const FLOWS_FIXED: u8 = 0x80;

/// The UDP flows that the sender of a heartbeat asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedFlows {
    /// How many it wants to send over, at most 15; a receiver opens no more than it has.
    pub count: u8,
    /// The receiver is to send over as many.
    pub is_fixed: bool,
}

impl WantedFlows {
    const fn to_byte(self) -> u8 {
        self.count & FLOWS_COUNT | if self.is_fixed { FLOWS_FIXED } else { 0 }
    }

    const fn of_byte(byte: u8) -> Option<Self> {
        let count = byte & FLOWS_COUNT;
        if count == 0 { None } else { Some(Self { count, is_fixed: byte & FLOWS_FIXED != 0 }) }
    }
}

/// One side's report about the newest heartbeat that it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The run that sent the heartbeat.
    pub epoch: u32,
    /// The heartbeat's stamp, µs of its sender's clock.
    pub stamp_us: u64,
    /// Time from the heartbeat's arrival to the sending of the echo, µs.
    pub delay_us: u32,
    /// The heartbeat's count of datagrams sent.
    pub sent: u64,
    /// Datagrams that had arrived when the heartbeat arrived.
    pub received: u64,
}

/// A heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's run.
    pub epoch: u32,
    /// The sender's clock, µs.
    pub stamp_us: u64,
    /// Datagrams the sender sent on this link in this run, this one included.
    pub sent: u64,
    /// The newest heartbeat received by the sender, if any.
    pub echo: Option<Echo>,
    /// The sender has proof that both directions deliver.
    pub proven: bool,
    /// The sender accepts data frames that are to be delivered at once.
    pub at_once: bool,
    /// The sender's priority for the link.
    pub priority: u8,
    /// The role that the sender gives the link.
    pub role: LinkRole,
    /// The most that the sender asks to receive on the link.
    pub rx_ceiling: Option<BitRate>,
    /// The sender sends again the packets that feedback shows to be lost on this link.
    pub resends: bool,
    /// The sender accepts packets whose checksum is not computed yet.
    pub partial: bool,
    /// The sender accepts indirect feedback: feedback about a link that comes over another link.
    pub indirect_feedback: bool,
    /// The sender takes streams.
    pub streams: bool,
    /// The sender takes figures of what the receiver sends.
    pub figures: bool,
    /// The session's links that the sender counts as failed, one bit for each.
    pub failed: u32,
    /// UDP flows of the link that the sender asks for.
    pub flows: Option<WantedFlows>,
    /// The session's links that the sender retired, one bit for each.
    pub retired: u32,
}

impl Heartbeat {
    /// Bytes of the payload.
    pub const fn payload_bytes(&self) -> u16 {
        payload_bytes(self.failed, self.flows.is_some(), self.retired)
    }

    /// Appends the payload.
    pub fn put(&self, buf: &mut Vec<u8>) {
        let echo = self.echo.unwrap_or(Echo { epoch: 0, stamp_us: 0, delay_us: 0, sent: 0, received: 0 });
        let mut flags = 0;
        if self.echo.is_some() {
            flags |= FLAG_ECHO;
        }
        if self.proven {
            flags |= FLAG_PROVEN;
        }
        if self.at_once {
            flags |= FLAG_AT_ONCE;
        }
        if self.resends {
            flags |= FLAG_RESENDS;
        }
        if self.partial {
            flags |= FLAG_PARTIAL;
        }
        if self.indirect_feedback {
            flags |= FLAG_INDIRECT;
        }
        if self.streams {
            flags |= FLAG_STREAMS;
        }
        if self.figures {
            flags |= FLAG_FIGURES;
        }
        // At least 1: zero means "no limit".
        let ceiling = self
            .rx_ceiling
            .map_or(0, |rate| u32::try_from((rate.as_bps() / 1_000).max(1)).unwrap_or(u32::MAX));
        buf.extend_from_slice(&[VERSION, flags, self.priority, role_number(self.role)]);
        buf.extend_from_slice(&self.epoch.to_be_bytes());
        buf.extend_from_slice(&echo.epoch.to_be_bytes());
        buf.extend_from_slice(&self.stamp_us.to_be_bytes());
        buf.extend_from_slice(&echo.stamp_us.to_be_bytes());
        buf.extend_from_slice(&echo.delay_us.to_be_bytes());
        buf.extend_from_slice(&self.sent.to_be_bytes());
        buf.extend_from_slice(&echo.sent.to_be_bytes());
        buf.extend_from_slice(&echo.received.to_be_bytes());
        buf.extend_from_slice(&ceiling.to_be_bytes());
        if self.failed != 0 || self.flows.is_some() || self.retired != 0 {
            buf.extend_from_slice(&self.failed.to_be_bytes());
        }
        if self.flows.is_some() || self.retired != 0 {
            buf.push(self.flows.map_or(0, WantedFlows::to_byte));
        }
        if self.retired != 0 {
            buf.extend_from_slice(&self.retired.to_be_bytes());
        }
    }

    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, Discard> {
        let mut reader = Reader::new(payload, Discard::HeartbeatMalformed);
        let [version, flags, priority, role] = reader.take()?;
        if version != VERSION {
            return Err(Discard::HeartbeatMalformed);
        }
        let epoch = u32::from_be_bytes(reader.take()?);
        let echo_epoch = u32::from_be_bytes(reader.take()?);
        let stamp_us = u64::from_be_bytes(reader.take()?);
        let echo = Echo {
            epoch: echo_epoch,
            stamp_us: u64::from_be_bytes(reader.take()?),
            delay_us: u32::from_be_bytes(reader.take()?),
            sent: 0,
            received: 0,
        };
        let sent = u64::from_be_bytes(reader.take()?);
        let echo = Echo {
            sent: u64::from_be_bytes(reader.take()?),
            received: u64::from_be_bytes(reader.take()?),
            ..echo
        };
        let ceiling = u32::from_be_bytes(reader.take()?);
        Ok(Self {
            epoch,
            stamp_us,
            sent,
            echo: (flags & FLAG_ECHO != 0).then_some(echo),
            proven: flags & FLAG_PROVEN != 0,
            at_once: flags & FLAG_AT_ONCE != 0,
            priority,
            role: role_of(role),
            resends: flags & FLAG_RESENDS != 0,
            partial: flags & FLAG_PARTIAL != 0,
            indirect_feedback: flags & FLAG_INDIRECT != 0,
            streams: flags & FLAG_STREAMS != 0,
            figures: flags & FLAG_FIGURES != 0,
            rx_ceiling: (ceiling != 0).then(|| BitRate::from_bps(u64::from(ceiling) * 1_000)),
            failed: reader.take().map_or(0, u32::from_be_bytes),
            flows: reader.take().ok().and_then(|[flows]| WantedFlows::of_byte(flows)),
            retired: reader.take().map_or(0, u32::from_be_bytes),
        })
    }
}

/// Bytes of the payload of a heartbeat that tells of these failed and retired links, and asks for
/// flows or does not.
pub const fn payload_bytes(failed: u32, asks_for_flows: bool, retired: u32) -> u16 {
    match (failed, asks_for_flows, retired) {
        (0, false, 0) => HEARTBEAT_BYTES,
        (_, false, 0) => HEARTBEAT_FAILED_BYTES,
        (_, true, 0) => HEARTBEAT_FLOWS_BYTES,
        (_, _, _) => HEARTBEAT_RETIRED_BYTES,
    }
}

const fn role_number(role: LinkRole) -> u8 {
    match role {
        LinkRole::Primary => 0,
        LinkRole::Secondary => 1,
        LinkRole::Backup => 2,
        LinkRole::Never => 3,
    }
}

/// An unknown role is read as backup: a role for constant use would have been read as primary.
const fn role_of(number: u8) -> LinkRole {
    match number {
        0 => LinkRole::Primary,
        1 => LinkRole::Secondary,
        3 => LinkRole::Never,
        _ => LinkRole::Backup,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Heartbeat {
        Heartbeat {
            epoch: 0x0102_0304,
            stamp_us: 1_000_000,
            sent: 7,
            echo: Some(Echo { epoch: 0x0a0b_0c0d, stamp_us: 2_000_000, delay_us: 500, sent: 9, received: 8 }),
            proven: true,
            at_once: true,
            priority: 2,
            role: LinkRole::Secondary,
            rx_ceiling: Some(BitRate::from_bps(10_000_000)),
            resends: true,
            partial: true,
            indirect_feedback: true,
            streams: true,
            figures: true,
            failed: 0x0000_0102,
            flows: None,
            retired: 0,
        }
    }

    #[test]
    fn flows_are_told_where_the_sender_asks_for_some() {
        for (flows, byte) in [(4, 4), (8, 8)].into_iter().flat_map(|(count, byte)| {
            [false, true].map(|is_fixed| (WantedFlows { count, is_fixed }, byte | u8::from(is_fixed) << 7))
        }) {
            let asking = Heartbeat { failed: 0, flows: Some(flows), ..sample() };
            let mut buf = Vec::new();
            asking.put(&mut buf);
            assert_eq!((buf.len(), asking.payload_bytes()), (65, 65));
            assert_eq!(buf[60..], [0, 0, 0, 0, byte]);
            assert_eq!(Heartbeat::parse(&buf), Ok(asking));
            // As an earlier version reads it.
            assert_eq!(Heartbeat::parse(&buf[..64]), Ok(Heartbeat { flows: None, ..asking }));
            buf[64] = 0x70;
            assert_eq!(Heartbeat::parse(&buf), Ok(Heartbeat { flows: None, ..asking }));
        }
    }

    /// The vector of PROTOCOL.md.
    #[test]
    fn vector() {
        let mut buf = Vec::new();
        sample().put(&mut buf);
        let text: String = buf.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text,
            "01ff0201010203040a0b0c0d00000000000f424000000000001e8480000001f4\
             0000000000000007000000000000000900000000000000080000 271000000102"
                .replace(' ', "")
        );
        assert_eq!(buf.len(), usize::from(sample().payload_bytes()));
        assert_eq!(Heartbeat::parse(&buf), Ok(sample()));
        buf[1] |= 0x04;
        assert_eq!(Heartbeat::parse(&buf), Ok(Heartbeat { at_once: true, ..sample() }));
    }

    #[test]
    fn every_role_is_told_and_an_unknown_one_is_a_backup() {
        let mut buf = Vec::new();
        sample().put(&mut buf);
        for (number, role) in [
            (0, LinkRole::Primary),
            (1, LinkRole::Secondary),
            (2, LinkRole::Backup),
            (3, LinkRole::Never),
            (4, LinkRole::Backup),
            (255, LinkRole::Backup),
        ] {
            buf[3] = number;
            assert_eq!(Heartbeat::parse(&buf).unwrap().role, role);
            let mut again = Vec::new();
            Heartbeat { role, ..sample() }.put(&mut again);
            assert_eq!(again[3], number.min(3) - u8::from(number > 3));
        }
    }

    #[test]
    fn failed_links_are_told_where_there_are_any() {
        let mut buf = Vec::new();
        let healthy = Heartbeat { failed: 0, ..sample() };
        healthy.put(&mut buf);
        assert_eq!((buf.len(), healthy.payload_bytes()), (60, 60));
        assert_eq!(Heartbeat::parse(&buf), Ok(healthy));
    }

    #[test]
    fn retired_links_are_told_where_there_are_any() {
        for flows in [None, Some(WantedFlows { count: 3, is_fixed: false })] {
            let (mut buf, told) = (Vec::new(), Heartbeat { flows, retired: 0x8000_0001, ..sample() });
            told.put(&mut buf);
            assert_eq!((buf.len(), told.payload_bytes()), (69, 69));
            assert_eq!(buf[64..], [if flows.is_some() { 3 } else { 0 }, 0x80, 0, 0, 1]);
            assert_eq!(Heartbeat::parse(&buf), Ok(told));
            // As an earlier version reads it, and one that was cut.
            for cut in 65..69 {
                assert_eq!(Heartbeat::parse(&buf[..cut]), Ok(Heartbeat { retired: 0, ..told }));
            }
        }
    }

    #[test]
    fn a_longer_payload_is_read_and_a_shorter_or_foreign_one_refused() {
        let mut buf = Vec::new();
        sample().put(&mut buf);
        buf.push(0);
        assert_eq!(Heartbeat::parse(&buf), Ok(sample()));
        let full = Heartbeat { retired: 1, ..sample() };
        let mut longer = Vec::new();
        full.put(&mut longer);
        longer.extend([0, 0xff]);
        assert_eq!(Heartbeat::parse(&longer), Ok(full));
        for cut in 0..60 {
            assert_eq!(Heartbeat::parse(&buf[..cut]), Err(Discard::HeartbeatMalformed));
        }
        for cut in 60..64 {
            assert_eq!(Heartbeat::parse(&buf[..cut]), Ok(Heartbeat { failed: 0, ..sample() }));
        }
        buf[0] = 2;
        assert_eq!(Heartbeat::parse(&buf), Err(Discard::HeartbeatMalformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(heartbeat) = Heartbeat::parse(&bytes) {
                let mut again = Vec::new();
                heartbeat.put(&mut again);
                prop_assert_eq!(Heartbeat::parse(&again), Ok(heartbeat));
            }
        }
    }
}
