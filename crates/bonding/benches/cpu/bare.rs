//! A tunnel with only the offloads and the AEAD of the bond: the lower bound of what a tunnel
//! costs. One link, fixed keys, no handshake, no measurement, no control; not for use.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use bonding_lab::{Host, Lab, Process, addr};
use bonding_os::address::Cidr;
use bonding_os::coalesce::Outbound;
use bonding_os::poll::{Interest, Poller};
use bonding_os::tun::{Inbound, Tun, TunConfig};
use bonding_os::udp::{BATCH_BYTES_MAX, Batch, ReceiveBuffers, Sent, UdpConfig, UdpSocket};
use bonding_proto::crypto::aead::{AeadKey, Cipher};
use bonding_testkit::bond::{CLIENT_V4, SERVER_V4, TUNNEL, run as run_command};
use bytes::{Buf as _, Bytes};

const PORT: u16 = 7_777;
/// Bytes of the counter ahead of every sealed packet.
const HEADER_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// The MTU of the bond over links of 1,500 bytes.
const MTU: u16 = 1_429;
const SEGMENTS_MAX: usize = 64;
/// Reads from the device, or receives from the socket, in a row.
const ROUNDS: usize = 16;

/// Starts both ends.
pub(crate) fn start(lab: &Lab) -> anyhow::Result<Vec<Process>> {
    let client = SocketAddr::new(addr::client_v4(0).into(), PORT);
    let server = SocketAddr::new(addr::SERVER_V4.into(), PORT);
    let ends = [
        (Host::Client, client, server, format!("{CLIENT_V4}/24")),
        (Host::Server, server, client, format!("{SERVER_V4}/24")),
    ];
    let mut processes = Vec::new();
    for (host, local, remote, address) in &ends {
        let mut command: Command = lab.host(*host).command(std::env::current_exe()?);
        command.args(["--bare", &local.to_string(), &remote.to_string(), address]);
        command.stdin(Stdio::null());
        processes.push(lab.spawn(&mut command)?);
    }
    // Each host routes all other networks into the tunnel.
    for (host, _, _, _) in &ends {
        bonding_testkit::wait::eventually("the bare tunnel", || {
            let mut command = lab.host(*host).command("ip");
            run_command(command.args(["route", "replace", "default", "dev", TUNNEL])).map(drop)
        })?;
    }
    Ok(processes)
}

struct Tunnel {
    tun: Tun,
    socket: UdpSocket,
    remote: SocketAddr,
    key: AeadKey,
    counter: u64,
    batch: Vec<u8>,
}

/// Runs one end until it is killed.
pub(crate) fn run(end: &[String]) -> anyhow::Result<()> {
    let [local, remote, address] = end else { anyhow::bail!("the bare tunnel needs three arguments") };
    let config = TunConfig {
        name: TUNNEL.to_owned(),
        mtu: MTU,
        addresses: vec![address.parse::<Cidr>().context("not an address")?],
        offload: true,
    };
    let tun = Tun::create(&config)?;
    let socket = UdpSocket::bind(&UdpConfig { bind: local.parse()?, interface: None })?;
    let key = AeadKey::new(Cipher::Aes256Gcm, &[9; 32]);
    let batch = Vec::with_capacity(BATCH_BYTES_MAX);
    let mut tunnel = Tunnel { tun, socket, remote: remote.parse()?, key, counter: 0, batch };
    let mut poller = Poller::new()?;
    poller.add(&tunnel.tun, 0, Interest::Readable)?;
    poller.add(&tunnel.socket, 1, Interest::Readable)?;
    let mut buffers = ReceiveBuffers::new();
    let (mut ready, mut packets, mut datagrams, mut opened) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    loop {
        poller.wait(&mut ready, Some(Duration::from_secs(1)))?;
        for one in &ready {
            if one.token == 0 {
                for _ in 0..ROUNDS {
                    if !tunnel.tun.recv_batch(&mut packets)? {
                        break;
                    }
                    tunnel.send(packets.drain(..));
                }
            } else {
                let mut rounds = 0;
                while rounds < ROUNDS && tunnel.socket.recv(&mut buffers, &mut datagrams) {
                    rounds += 1;
                }
                for received in datagrams.drain(..) {
                    let mut data = received.data;
                    let Some((head, sealed)) = data.split_first_chunk_mut::<HEADER_BYTES>() else { continue };
                    let Ok(size) = tunnel.key.open(0, u64::from_be_bytes(*head), head, sealed) else {
                        continue;
                    };
                    let is_partial = data.get(HEADER_BYTES - 1).is_some_and(|byte| byte & 1 == 1);
                    data.truncate(HEADER_BYTES + size);
                    data.advance(HEADER_BYTES);
                    opened.push((data.freeze(), is_partial));
                }
                tunnel.tun.send_batch(&opened, |(bytes, is_partial): &(Bytes, bool)| Outbound {
                    bytes,
                    is_partial: *is_partial,
                })?;
                opened.clear();
            }
        }
    }
}

impl Tunnel {
    /// Sends the packets of one read in batches of equal size.
    fn send(&mut self, packets: impl Iterator<Item = Inbound>) {
        let (mut segment_size, mut segments) = (0, 0);
        for Inbound { bytes: packet, is_partial, .. } in packets {
            let size = HEADER_BYTES + packet.len() + TAG_BYTES;
            if segments > 0
                && (size > segment_size
                    || segments == SEGMENTS_MAX
                    || self.batch.len() + size > BATCH_BYTES_MAX)
            {
                self.flush(segment_size);
                segments = 0;
            }
            if segments == 0 {
                segment_size = size;
            }
            // The lowest bit says whether the checksum is partial.
            let header = (self.counter * 2 + u64::from(is_partial)).to_be_bytes();
            self.batch.extend_from_slice(&header);
            let start = self.batch.len();
            self.batch.extend_from_slice(&packet);
            let sealed = self.batch.get_mut(start..).unwrap_or_default();
            let tag = self.key.seal(0, u64::from_be_bytes(header), &header, sealed);
            self.batch.extend_from_slice(&tag);
            self.counter += 1;
            segments += 1;
            // Only the last packet of a batch may be shorter.
            if size < segment_size {
                self.flush(segment_size);
                segments = 0;
            }
        }
        if segments > 0 {
            self.flush(segment_size);
        }
    }

    fn flush(&mut self, segment_size: usize) {
        let batch =
            Batch { remote: self.remote, local: None, contents: &self.batch, segment_size, is_ect: false };
        // A packet that the socket refuses is lost.
        let (Sent::Done | Sent::Blocked { .. }) = self.socket.send(&batch);
        self.batch.clear();
    }
}
