//! The hosts behind the two ends of the bond: applications over real transports, in virtual time.
//!
//! A [`Host`] owns applications and hands each arriving IP packet to the application that accepts
//! it. Packets leave in the order of the applications, each with its own IP identification. A host
//! has no link rate and no queue: every packet of a transport reaches the bond at once, as through
//! a TUN device.

pub mod bulk;
pub mod echo;
pub mod quic;
pub mod raw;
pub mod stream;
pub mod tcp;

use std::time::Duration;

use bonding_proto::{Instant, PacketBuf, StreamHost};
use bytes::Bytes;

use crate::inet::{self, FlowKey};

/// The measurements of one application.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Verified payload bytes received.
    pub received_bytes: u64,
    /// Each flow's part of those bytes.
    pub flow_bytes: Vec<u64>,
    /// Connections or exchanges that were established.
    pub connected: usize,
    /// Transfers that have ended at both sides.
    pub finished: usize,
    /// Payloads that differ from the sent ones.
    pub corrupt: u64,
    /// Datagrams received more than once.
    pub duplicates: u64,
    /// Datagrams received behind a later one of their flow.
    pub reordered: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// Segments sent again, if the transport tells.
    pub retransmits: Option<u64>,
    /// Sending time and delay of each datagram that arrived: one way, or there and back for an
    /// echo.
    pub delays: Vec<(Instant, Duration)>,
}

/// One application on a host.
pub trait App: std::fmt::Debug {
    /// The application's name in messages.
    fn name(&self) -> &'static str;
    /// Whether packets of this flow are for the application.
    fn accepts(&self, flow: &FlowKey) -> bool;
    /// Handles a packet that the application accepts.
    fn handle_packet(&mut self, packet: &[u8], now: Instant);
    /// To be called when [`Self::poll_timeout`] is due.
    fn handle_timeout(&mut self, now: Instant);
    /// The next packet to send.
    fn poll_packet(&mut self, now: Instant) -> Option<Vec<u8>>;
    /// When the application acts next, and the reason.
    fn poll_timeout(&self) -> Option<(Instant, &'static str)>;
    /// Serves the streams of its side of the bond. Whether there was anything to do.
    fn handle_streams(&mut self, _streams: &mut dyn StreamHost, _now: Instant) -> bool {
        false
    }
    /// The measurements so far.
    fn report(&self) -> Report;
}

/// One side's applications.
#[derive(Debug, Default)]
pub struct Host {
    apps: Vec<Box<dyn App>>,
    ident: u16,
    /// Packets that no application accepts.
    unclaimed: u64,
}

impl Host {
    /// A host without applications.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an application; its place names it in [`Self::report`].
    pub fn add(&mut self, app: Box<dyn App>) -> usize {
        self.apps.push(app);
        self.apps.len() - 1
    }

    /// Hands a packet to the first application that accepts it.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        let app = FlowKey::of(packet).and_then(|flow| self.apps.iter_mut().find(|app| app.accepts(&flow)));
        match app {
            Some(app) => app.handle_packet(packet, now),
            None => self.unclaimed += 1,
        }
    }

    /// Lets every application act whose deadline has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for app in &mut self.apps {
            if app.poll_timeout().is_some_and(|(due, _)| due <= now) {
                app.handle_timeout(now);
            }
        }
    }

    /// The next packet to send.
    pub fn poll_packet(&mut self, now: Instant) -> Option<PacketBuf> {
        let mut packet = self.apps.iter_mut().find_map(|app| app.poll_packet(now))?;
        self.ident = self.ident.wrapping_add(1);
        inet::stamp_ident(&mut packet, self.ident);
        Some(PacketBuf::from(Bytes::from(packet)))
    }

    /// Lets the applications serve the streams. Whether there was anything to do.
    pub fn handle_streams(&mut self, streams: &mut dyn StreamHost, now: Instant) -> bool {
        // Each of them, not only the first that has something to do.
        self.apps.iter_mut().map(|app| app.handle_streams(streams, now)).filter(|any| *any).count() > 0
    }

    /// When an application acts next, and the reason.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.apps.iter().filter_map(|app| app.poll_timeout()).min()
    }

    /// The measurements of the application at `place`; an empty report if there is none.
    pub fn report(&self, place: usize) -> Report {
        self.apps.get(place).map(|app| app.report()).unwrap_or_default()
    }

    /// Every application's name and report.
    pub fn reports(&self) -> impl Iterator<Item = (&'static str, Report)> + '_ {
        self.apps.iter().map(|app| (app.name(), app.report()))
    }

    /// Packets that no application accepted.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed
    }
}
