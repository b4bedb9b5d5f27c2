//! What the server forwards, and for whom: beside the client there are a neighbour on the server's
//! network (the internet host), a private network of the server's, and a second client in it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bonding_lab::{Host, Lab, addr};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_testkit::bond::{Bond, CLIENT_V4, CLIENT_V6, FOLDER, Options, SERVER_V4, TUNNEL, run};
use bonding_testkit::wait::eventually;
use bonding_testkit::web::Web;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::PROGRAMS;

/// The host in the private network, and its address.
pub(crate) const LAN: &str = "lan";
pub(crate) const LAN_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 2));
const LAN_HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));
/// The address of the second client in the tunnel, which [`Options::enrolled`] gives it.
const OTHER_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 1, 0));
/// Where a cloud keeps its machines' credentials: here the host in the private network has it.
pub(crate) const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const ALL: &str = "[\"internet\", \"server\", \"private\", \"clients\"]";

/// A private network of the server, with one other host; gone when dropped.
pub(crate) struct Lan;

impl Lan {
    pub(crate) fn start(lab: &Lab) -> anyhow::Result<Self> {
        run(Command::new("ip").args(["netns", "add", LAN]))?;
        let lan = Self;
        for words in [
            "ip link add lan type veth peer name lan netns lan",
            "ip address add 192.168.77.1/24 dev lan",
            "ip address add fd77::1/64 dev lan nodad",
            // A router asks for its neighbours from such an address, which the lab's devices lack.
            "ip address add fe80::77/64 dev lan nodad",
            "ip link set lan up",
        ] {
            on(lab, Host::Server, words)?;
        }
        for words in [
            "ip link set lo up",
            "ip address add 192.168.77.2/24 dev lan",
            "ip address add fd77::2/64 dev lan nodad",
            "ip link set lan up",
            "ip route add default via 192.168.77.1",
            "ip route add default via fd77::1",
        ] {
            run(&mut Self::command(words))?;
        }
        Ok(lan)
    }

    /// A command on its host.
    pub(crate) fn command(words: &str) -> Command {
        command_in(LAN, words)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // The sandbox's end removes what is left.
        let _ = run(Command::new("ip").args(["netns", "del", LAN]));
    }
}

/// Calls `work` on a thread of a host beside the lab's.
pub(crate) fn run_in<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let namespace = File::open(Path::new("/run/netns").join(namespace))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A command on a host beside the lab's.
pub(crate) fn command_in(namespace: &str, words: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).args(words.split(' '));
    command
}

/// A command on a host of the lab.
fn command(lab: &Lab, host: Host, words: &str) -> anyhow::Result<Command> {
    let mut words = words.split(' ');
    let mut command = lab.host(host).command(words.next().context("no program")?);
    command.args(words);
    Ok(command)
}

pub(crate) fn on(lab: &Lab, host: Host, words: &str) -> anyhow::Result<String> {
    run(&mut command(lab, host, words)?)
}

/// What a few pings from a host of the lab print. The wires have no delay, the links 80 ms.
fn ping(lab: &Lab, host: Host, target: IpAddr) -> anyhow::Result<String> {
    let mut ping = command(lab, host, &format!("ping -n -c 3 -i 0.1 -W 0.5 {target}"))?;
    Ok(String::from_utf8_lossy(&ping.output()?.stdout).into_owned())
}

fn is_answered(said: &str) -> bool {
    said.contains(" bytes from ")
}

fn answers(lab: &Lab, host: Host, target: IpAddr) -> anyhow::Result<bool> {
    Ok(is_answered(&ping(lab, host, target)?))
}

fn reaches(lab: &Lab, host: Host, target: IpAddr) -> anyhow::Result<()> {
    eventually(&format!("the {} reaches {target}", host.name()), || {
        ensure!(answers(lab, host, target)?, "no answer");
        Ok(())
    })
}

/// The kernel's switch of IPv6 forwarding, as a file.
const IPV6_SWITCH: &str = "ipv6/conf/all/forwarding";

/// As an administrator, or another program on the server's host.
fn switch_forwarding(lab: &Lab, on: bool) -> anyhow::Result<()> {
    for switch in ["ipv4/ip_forward", IPV6_SWITCH] {
        let write = format!("echo {} > /proc/sys/net/{switch}", u8::from(on));
        run(lab.host(Host::Server).command("sh").args(["-c", &write]))?;
    }
    Ok(())
}

fn nft(lab: &Lab, rules: &str) -> anyhow::Result<String> {
    run(lab.host(Host::Server).command("nft").arg(rules))
}

/// A datagram from the private network with a source of the tunnel's reaches the internet host:
/// gives the source that it has there.
fn forged_arrives_from(lab: &Lab) -> anyhow::Result<Option<IpAddr>> {
    const PORT: u16 = 7_777;
    run(&mut Lan::command("ip address replace 10.99.0.77/32 dev lo"))?;
    run(&mut Lan::command("ip route replace 198.51.100.0/24 via 192.168.77.1 src 10.99.0.77"))?;
    let socket = lab.host(Host::Internet).run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
    // The wires have no delay.
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let send = format!("echo forged > /dev/udp/{}/{PORT}", addr::INTERNET_V4);
    run(Lan::command("bash -c").arg(send))?;
    Ok(socket.recv_from(&mut [0; 16]).ok().map(|(_, from)| from.ip()))
}

/// A neighbour without a key reaches neither the server's other network nor a client through the
/// server, and a forged source does not leave under the server's address. Once another program
/// needs forwarding it gets it, and keeps it after the server's end.
pub(crate) fn the_server_forwards_only_what_is_its_own(lab: &Lab) -> anyhow::Result<()> {
    let _lan = Lan::start(lab)?;
    for network in ["192.168.77.0/24", "192.168.50.0/24", "10.99.0.0/24"] {
        on(lab, Host::Internet, &format!("ip route add {network} via {}", addr::SERVER_EGRESS_V4))?;
    }
    for network in ["fd99::/64", "fd77::/64"] {
        on(lab, Host::Internet, &format!("ip route add {network} via {}", addr::SERVER_EGRESS_V6))?;
    }
    // A namespace has the switch of its machine.
    switch_forwarding(lab, false)?;
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    on(lab, Host::Client, &format!("ip route add {} dev {TUNNEL}", addr::INTERNET_V6))?;
    let is_fenced = |moment: &str| {
        for target in [IpAddr::from(addr::INTERNET_V4), addr::INTERNET_V6.into()] {
            reaches(lab, Host::Client, target).with_context(|| moment.to_owned())?;
        }
        for target in [CLIENT_V4, CLIENT_V6, SERVER_V4] {
            ensure!(!answers(lab, Host::Internet, target)?, "the neighbour reaches {target} {moment}");
        }
        let forged = forged_arrives_from(lab)?;
        ensure!(forged.is_none(), "a forged source left as {forged:?} {moment}");
        anyhow::Ok(())
    };
    is_fenced("alone")?;
    for target in [LAN_HOST, LAN_HOST_V6] {
        ensure!(!answers(lab, Host::Internet, target)?, "the neighbour reaches {target}");
    }
    // From Linux 6.17 on the switch of all is left to others.
    let ipv6 = || on(lab, Host::Server, &format!("cat /proc/sys/net/{IPV6_SWITCH}"));
    if Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists() {
        ensure!(ipv6()?.trim() == "0", "the server switched IPv6 forwarding on for all interfaces");
    }

    // Another program on the server's host begins to forward.
    switch_forwarding(lab, true)?;
    for target in [LAN_HOST, LAN_HOST_V6] {
        reaches(lab, Host::Internet, target).context("another program's packets do not pass")?;
    }
    is_fenced("beside another program")?;
    bond.stop()?;
    for target in [LAN_HOST, LAN_HOST_V6] {
        reaches(lab, Host::Internet, target).context("the end of the server cut another program off")?;
    }
    Ok(())
}

/// Writes the configuration of the second client, which is the host in the private network, and
/// starts it.
pub(crate) fn start_other_client(lab: &Lab, key: &PrivateKey) -> anyhow::Result<bonding_lab::Process> {
    let file = |name: &str| Path::new(FOLDER).join(name);
    bonding_testkit::bond::write_key(&file("other.key"), key)?;
    let server = bonding_testkit::bond::public_key(Host::Server);
    let text = format!(
        "[server]\nhost = \"192.168.77.1\"\npublic_key = \"{server}\"\n[identity]\nprivate_key_file = \"{}\"\n\
         [tunnel]\naddress = \"{OTHER_CLIENT}/32\"\n[status]\nsocket = \"{}\"\n[[link]]\ninterface = \"lan\"\n",
        file("other.key").display(),
        file("other.sock").display(),
    );
    std::fs::write(file("other.toml"), text)?;
    let mut client = Lan::command(PROGRAMS.client);
    let log = std::fs::File::create(file("other.log"))?;
    client.arg("--config").arg(file("other.toml"));
    client.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let process = lab.spawn(&mut client)?;
    // Its tunnel has a route to the other client's network.
    eventually("the second client's tunnel", || {
        run(&mut Lan::command(&format!("ip route replace 192.168.50.0/24 dev {TUNNEL}")))
    })?;
    Ok(process)
}

/// A client reaches the internet and the tunnel's own address, which answers pings. The server's
/// services, its private networks and other clients need to be allowed, and the metadata service is
/// never reached. What one client may does not count for another.
pub(crate) fn clients_reach_what_is_allowed(lab: &Lab) -> anyhow::Result<()> {
    let _lan = Lan::start(lab)?;
    run(&mut Lan::command(&format!("ip address add {METADATA}/32 dev lo")))?;
    on(lab, Host::Server, &format!("ip route add {METADATA} via {LAN_HOST}"))?;
    let key = PrivateKey::from_bytes([9; 32]);
    let options = Options { allow: "[\"internet\"]", enrolled: vec![key.public()], ..Options::default() };
    let mut bond = Bond::start(lab, PROGRAMS, options)?;
    let _other = start_other_client(lab, &key)?;
    let service = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
    let _web = Web::start(lab.host(Host::Server), service, b"server".to_vec())?;
    let fetch = || {
        let mut curl = command(lab, Host::Client, &format!("curl -s -m 5 http://{SERVER_V4}/"))?;
        anyhow::Ok(curl.output()?.status.success())
    };
    let other_reaches = |target: IpAddr| {
        let mut ping = Lan::command(&format!("ping -n -c 3 -i 0.1 -W 0.5 -I {TUNNEL} {target}"));
        anyhow::Ok(is_answered(&String::from_utf8_lossy(&ping.output()?.stdout)))
    };
    let both_are_up = || {
        eventually("both clients are up", || {
            ensure!(answers(lab, Host::Client, SERVER_V4)? && other_reaches(SERVER_V4)?);
            Ok(())
        })
    };
    both_are_up()?;
    reaches(lab, Host::Client, addr::INTERNET_V4.into())?;
    ensure!(!fetch()?, "a client reaches a service of the server");
    // The kernel sends only a few refusals in a second.
    let said = ping(lab, Host::Client, LAN_HOST)?;
    ensure!(said.contains("Packet filtered"), "the client is not told of the refusal: {said}");
    for target in [LAN_HOST, OTHER_CLIENT, METADATA] {
        ensure!(!answers(lab, Host::Client, target)?, "{target} is reached");
    }

    // This client alone may reach everything.
    let file = bond.configuration(Host::Server);
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("name = \"home\"", &format!("name = \"home\"\nallow = {ALL}")))?;
    bond.kill(Host::Server)?;
    bond.start_server()?;
    both_are_up()?;
    ensure!(fetch()?, "a client that may does not reach a service of the server");
    for target in [LAN_HOST, OTHER_CLIENT, addr::INTERNET_V4.into()] {
        reaches(lab, Host::Client, target)?;
    }
    ensure!(!answers(lab, Host::Client, METADATA)?, "the metadata service is reached");
    ensure!(!other_reaches(CLIENT_V4)?, "a client has what only another may");
    bond.stop()
}

/// A firewall that lets only known and new connections in, and a redirected port.
const FIREWALL: &str = "table inet admin {
  chain input {
    type filter hook input priority filter; policy drop;
    iifname { \"lo\", \"tun-bond\" } accept
    ct state established,related accept
    meta l4proto { icmp, ipv6-icmp } accept
    udp dport 9001-9005 ct state new accept
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    udp dport 443 redirect to :9001
  }
}";

/// The listeners' datagrams stay out of connection tracking only as long as no other rule needs it.
/// A firewall may come and go while the server runs, also with `flush ruleset`, which is how
/// Debian's service reloads.
pub(crate) fn firewalls_come_and_go(lab: &Lab) -> anyhow::Result<()> {
    let mut bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let is_untracked = || anyhow::Ok(nft(lab, "list ruleset")?.contains("notrack"));
    ensure!(is_untracked()?, "every forged datagram has an entry in the connection table");
    nft(lab, FIREWALL)?;
    eventually("the listeners take part in connection tracking", || {
        ensure!(!is_untracked()?);
        Ok(())
    })?;
    // A start from nothing, over the redirected port.
    bond.kill(Host::Client)?;
    let file = bond.configuration(Host::Client);
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("ports = \"9001-9005\"", "ports = \"443\""))?;
    bond.start_client()?;
    bond.wait_until_up().context("through a firewall, over a redirected port")?;

    // The end of both, and of our table.
    std::fs::write(&file, text)?;
    nft(lab, "flush ruleset")?;
    eventually("the table is put back", || {
        let rules = nft(lab, "list ruleset")?;
        ensure!(rules.contains("masquerade") && rules.contains("notrack"), "{rules}");
        ensure!(bond.log(Host::Server).contains("it is put back"), "the log does not say so");
        Ok(())
    })?;
    bond.kill(Host::Client)?;
    bond.start_client()?;
    bond.wait_until_up()?;
    reaches(lab, Host::Client, addr::INTERNET_V4.into())?;
    bond.stop()
}

/// The datagrams that a client sends through its tunnel to the server's listeners are dropped: a
/// tunnel does not go through itself.
pub(crate) fn a_tunnel_does_not_lead_to_its_own_listeners(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::plain())?;
    let before = unknown_peers(&bond)?;
    lab.host(Host::Client).run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        (0..5).try_for_each(|_| socket.send_to(b"from inside", (SERVER_V4, 9_001)).map(drop))
    })??;
    // What is sent later arrives later.
    reaches(lab, Host::Client, SERVER_V4)?;
    let after = unknown_peers(&bond)?;
    ensure!(before == after, "{} datagrams came through the tunnel", after - before);
    bond.stop()
}

/// The datagrams that no client is known for.
fn unknown_peers(bond: &Bond<'_>) -> anyhow::Result<u64> {
    let status = bond.status(Host::Server)?;
    Ok(status.pointer("/discards/unknown_peer").and_then(serde_json::Value::as_u64).unwrap_or(0))
}

/// A plain link's peer is known by its address alone: what comes with that address by another
/// interface is dropped.
pub(crate) fn a_plain_link_is_heard_on_its_interface_only(lab: &Lab) -> anyhow::Result<()> {
    const PORT: u16 = 7_777;
    let bond = Bond::start(lab, PROGRAMS, Options::plain())?;
    let before = unknown_peers(&bond)?;
    on(lab, Host::Internet, &format!("ip address add {}/32 dev lo", addr::client_v4(0)))?;
    let listener = lab.host(Host::Internet).run(|| {
        let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        let forger = UdpSocket::bind((addr::client_v4(0), 0))?;
        // Frames of data, as a client's (PROTOCOL.md): number, kind, length, inner packet.
        for number in [1_u64, 100, 10_000] {
            let mut frame = number.to_be_bytes().to_vec();
            let packet = udp_packet(CLIENT_V4, addr::INTERNET_V4, PORT);
            frame.push(2);
            frame.extend(u16::try_from(packet.len()).unwrap_or_default().to_be_bytes());
            frame.extend(packet);
            forger.send_to(&frame, (addr::SERVER_EGRESS_V4, 9_001))?;
        }
        std::io::Result::Ok(listener)
    })??;
    listener.set_read_timeout(Some(Duration::from_millis(500)))?;
    let heard = listener.recv_from(&mut [0; 64]);
    ensure!(heard.is_err(), "a stranger's packet went through the tunnel: {heard:?}");
    eventually("the datagrams are counted", || {
        ensure!(unknown_peers(&bond)? >= before + 3);
        Ok(())
    })?;
    bond.stop()
}

/// An IPv4 packet with an empty UDP datagram, without its checksum.
fn udp_packet(source: IpAddr, destination: Ipv4Addr, port: u16) -> Vec<u8> {
    let IpAddr::V4(source) = source else { return Vec::new() };
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let words = packet.chunks(2).map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
    let sum: u32 = words.sum();
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or_default();
    packet.splice(10..12, (!sum).to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}
