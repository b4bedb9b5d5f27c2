//! What both ends of a connection are set to.

use std::sync::Arc;

use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn_proto::{TransportConfig, VarInt};

/// QUIC's congestion controls, as quinn has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438.
    Cubic,
    /// BBR, version 1.
    Bbr,
}

/// The settings of one end; the sender's congestion control counts.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    congestion: Congestion,
    datagram_bytes: u16,
    buffers: Buffers,
}

/// How large the socket's buffers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Buffers {
    /// 2 MiB each, as far as the kernel's limits allow: the transfer is the measured thing.
    #[default]
    Large,
    /// What the system gives a socket that asks for nothing, as most programs do.
    System,
}

/// A datagram size that QUIC cannot use.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("datagrams of {0} bytes: QUIC needs {min} to {max}", min = Settings::DATAGRAM_BYTES_MIN, max = Settings::DATAGRAM_BYTES_MAX)]
pub struct SettingsError(u16);

/// Flow control and send buffer of a connection. Chosen: more than 300 Mbit/s for 400 ms, so that
/// the congestion control alone decides.
const WINDOW_BYTES: u32 = 16 << 20;

impl Settings {
    /// The least UDP payload that carries a first packet of QUIC (RFC 9000 §14).
    pub const DATAGRAM_BYTES_MIN: u16 = 1_200;
    /// The UDP payload of a packet of 1500 bytes over IPv4.
    pub const DATAGRAM_BYTES_MAX: u16 = 1_472;

    /// Datagrams have `datagram_bytes` of UDP payload, which the path is known to carry: there is
    /// no search, and no fall to less.
    ///
    /// # Errors
    /// When QUIC cannot use that size.
    pub const fn new(congestion: Congestion, datagram_bytes: u16) -> Result<Self, SettingsError> {
        if datagram_bytes < Self::DATAGRAM_BYTES_MIN || datagram_bytes > Self::DATAGRAM_BYTES_MAX {
            return Err(SettingsError(datagram_bytes));
        }
        Ok(Self { congestion, datagram_bytes, buffers: Buffers::Large })
    }

    /// The same with other buffers of the socket.
    #[must_use]
    pub const fn with_buffers(self, buffers: Buffers) -> Self {
        Self { buffers, ..self }
    }

    pub(crate) const fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// The congestion control.
    pub const fn congestion(&self) -> Congestion {
        self.congestion
    }

    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        let factory: Arc<dyn ControllerFactory + Send + Sync> = match self.congestion {
            Congestion::Cubic => Arc::new(CubicConfig::default()),
            Congestion::Bbr => Arc::new(BbrConfig::default()),
        };
        let mut transport = TransportConfig::default();
        transport
            .initial_mtu(self.datagram_bytes)
            .min_mtu(self.datagram_bytes)
            .mtu_discovery_config(None)
            .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
            .receive_window(VarInt::from_u32(WINDOW_BYTES))
            .send_window(u64::from(WINDOW_BYTES))
            .congestion_controller_factory(factory);
        Arc::new(transport)
    }
}
