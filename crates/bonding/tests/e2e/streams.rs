//! TCP connections that end at the bond, so that their bytes cross it: they are to applications
//! and destinations what they would be without it, and go nowhere that packets may not.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bonding_lab::{Direction, Host, HostRef, Lab, addr};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_testkit::bond::{Bond, CLIENT_V4, Options, SERVER_V4, SERVER_V6, TUNNEL, run};
use bonding_testkit::wait::{PATIENCE, eventually};
use bonding_testkit::web::{Web, noise, text};
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::PROGRAMS;
use crate::fence::{self, LAN, LAN_HOST, Lan, METADATA, on};
use crate::sealed::joined;
use crate::traffic::{FILE_BYTES, curl, files_arrive_whole, files_cross, folder, sha256};

/// A port of the internet host that no service of the lab has.
const PORT: u16 = 8_080;
/// The service there.
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(addr::INTERNET_V4), PORT);

/// Bytes before a RST. Chosen: a kernel sends them within a few round trips.
const BEFORE_RESET: usize = 48 << 10;

/// The same port of every address of a host.
const EVERYWHERE: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);

/// A figure of the streams in the status of `host`.
pub(crate) fn figure(bond: &Bond<'_>, host: Host, key: &str) -> anyhow::Result<u64> {
    let status = bond.status(host)?;
    let figure = status.pointer(&format!("/streams/{key}")).and_then(Value::as_u64);
    figure.with_context(|| format!("no {key}: {status}"))
}

/// Both sides opened as many streams.
pub(crate) fn opened(bond: &Bond<'_>, count: u64) -> anyhow::Result<()> {
    for host in [Host::Client, Host::Server] {
        let opened = figure(bond, host, "opened")?;
        ensure!(opened == count, "the {} opened {opened} streams, not {count}", host.name());
    }
    Ok(())
}

/// No stream is left open, on both sides.
pub(crate) fn none_is_open(bond: &Bond<'_>) -> anyhow::Result<()> {
    eventually("every stream is over", || {
        for host in [Host::Client, Host::Server] {
            let open = figure(bond, host, "open")?;
            ensure!(open == 0, "the {} has {open} streams", host.name());
        }
        Ok(())
    })
}

/// A listener that waits for [`PATIENCE`] at most.
fn listen(host: HostRef, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = host.run(|| TcpListener::bind(address))??;
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
    Ok(listener)
}

/// A connection from the client. The route decides where it leaves.
fn connect(lab: &Lab, to: SocketAddr, within: Duration) -> anyhow::Result<io::Result<TcpStream>> {
    Ok(lab.host(Host::Client).run(|| {
        let socket = TcpStream::connect_timeout(&to, within)?;
        patient(&socket)?;
        Ok(socket)
    })?)
}

/// A dead connection is an error and does not hang the test.
fn patient(socket: &TcpStream) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))
}

/// A connection from the client to `listener` at [`SERVICE`]: both ends.
fn pair(lab: &Lab, listener: &TcpListener) -> anyhow::Result<(TcpStream, TcpStream)> {
    let near = connect(lab, SERVICE, PATIENCE)?.context("connect")?;
    let (far, peer) = listener.accept()?;
    ensure!(peer.ip() == addr::SERVER_EGRESS_V4, "the destination sees {peer}");
    patient(&far)?;
    Ok((near, far))
}

/// The next connection of the client fails; with which error.
fn fails(lab: &Lab, to: SocketAddr, within: Duration) -> anyhow::Result<io::Error> {
    match connect(lab, to, within)? {
        Ok(_) => bail!("{to} is connected"),
        Err(error) => Ok(error),
    }
}

/// Nothing ever came to `listener`.
fn is_untouched(listener: &TcpListener) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    match listener.accept() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
        Ok((_, peer)) => bail!("{peer} came to {:?}", listener.local_addr()),
    }
}

/// Closes with a RST.
fn reset(socket: TcpStream) -> io::Result<()> {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}

/// The connection ends with an error, as the peer reset it.
fn is_reset(socket: &mut TcpStream) -> anyhow::Result<()> {
    match io::copy(socket, &mut io::sink()) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("no reset: {other:?}"),
    }
}

/// Downloads and uploads, of IPv4 and IPv6, to a host behind the server and to the server itself.
/// Destinations see the server.
pub(crate) fn files_cross_as_streams(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    on(lab, Host::Client, &format!("ip route add {} dev {TUNNEL}", addr::INTERNET_V6))?;
    let cases: [(Host, IpAddr, IpAddr); 4] = [
        (Host::Internet, addr::INTERNET_V4.into(), addr::SERVER_EGRESS_V4.into()),
        (Host::Internet, addr::INTERNET_V6.into(), addr::SERVER_EGRESS_V6.into()),
        (Host::Server, SERVER_V4, SERVER_V4),
        (Host::Server, SERVER_V6, SERVER_V6),
    ];
    for (round, (host, to, seen)) in (1..).zip(cases) {
        let peers = files_cross(lab, host, SocketAddr::new(to, 80)).with_context(|| format!("to {to}"))?;
        ensure!(peers == [seen; 2], "{to} sees {peers:?}");
        opened(&bond, 2 * round)?;
    }
    let whole = u64::try_from(cases.len() * FILE_BYTES)?;
    for host in [Host::Client, Host::Server] {
        for direction in ["tx_bytes", "rx_bytes"] {
            let bytes = figure(&bond, host, direction)?;
            ensure!(bytes > whole, "the {} counts {bytes} {direction}", host.name());
        }
        ensure!(figure(&bond, host, "reset")? == 0, "the {} reset streams", host.name());
    }
    none_is_open(&bond)?;
    bond.stop()
}

/// A destination that refuses, is not there or is silent is so for the application, too; nothing is
/// connected before its destination is.
pub(crate) fn a_destination_answers_for_itself(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let error = fails(lab, SERVICE, PATIENCE)?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "a closed port: {error}");
    on(lab, Host::Client, &format!("ip route add {} dev {TUNNEL}", addr::INTERNET_V6))?;
    let error = fails(lab, SocketAddr::from((addr::INTERNET_V6, PORT)), PATIENCE)?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "a closed port over IPv6: {error}");

    // No host answers for the first address, and no route leads to the second.
    on(lab, Host::Server, "ip route add unreachable 192.0.2.0/24")?;
    for address in [Ipv4Addr::new(198, 51, 100, 77), Ipv4Addr::new(192, 0, 2, 1)] {
        let error = fails(lab, SocketAddr::from((address, PORT)), PATIENCE)?;
        let kinds = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
        ensure!(kinds.contains(&error.kind()), "{address} is not there: {error}");
    }

    let drop_all = format!(
        "table ip silent {{ chain input {{ type filter hook input priority 0; tcp dport {PORT} drop; }}; }}"
    );
    let nft = |rules: &str| run(lab.host(Host::Internet).command("nft").arg(rules));
    let listener = listen(lab.host(Host::Internet), SERVICE)?;
    nft(&drop_all)?;
    let error = fails(lab, SERVICE, Duration::from_secs(2))?;
    ensure!(error.kind() == ErrorKind::TimedOut, "a silent destination: {error}");
    nft("delete table ip silent")?;
    let (near, far) = loop {
        // The connection that was given up may come late.
        let near = connect(lab, SERVICE, PATIENCE)??;
        let (mut far, _) = listener.accept()?;
        patient(&far)?;
        (&near).write_all(b"new")?;
        let mut got = [0; 3];
        if far.read_exact(&mut got).is_ok() && got == *b"new" {
            break (near, far);
        }
    };
    // With the listener go connections that were not accepted.
    drop((near, far, listener));
    none_is_open(&bond)?;
    bond.stop()
}

/// A firewall of the client's host that lets in nothing but answers costs no connection: where it
/// stands, connections cross as packets.
pub(crate) fn a_local_firewall_costs_no_connection(lab: &Lab) -> anyhow::Result<()> {
    let nft = |rules: &str| run(lab.host(Host::Client).command("nft").arg(rules));
    nft("table inet firewall { chain input { type filter hook input priority 0; policy drop; \
         iif lo accept; ct state established,related accept; }; }")?;
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let listener = listen(lab.host(Host::Internet), SERVICE)?;
    pair(lab, &listener)?;
    opened(&bond, 0).context("behind the firewall")?;

    nft("add chain inet firewall input { policy accept; }")?;
    eventually("connections are split again", || {
        pair(lab, &listener)?;
        ensure!(figure(&bond, Host::Client, "opened")? > 0);
        Ok(())
    })?;
    let (near, mut far) = pair(lab, &listener)?;

    nft("add chain inet firewall input { policy drop; }")?;
    pair(lab, &listener).context("the firewall was shut meanwhile")?;
    let opened = figure(&bond, Host::Client, "opened")?;
    pair(lab, &listener)?;
    ensure!(figure(&bond, Host::Client, "opened")? == opened, "it is known to be shut");
    (&near).write_all(b"old")?;
    let mut got = [0; 3];
    far.read_exact(&mut got).context("a connection from before goes on")?;
    drop((near, far, listener));
    none_is_open(&bond)?;
    bond.stop()
}

/// What packets of a client may not reach, its streams do not.
pub(crate) fn streams_go_nowhere_that_packets_may_not(lab: &Lab) -> anyhow::Result<()> {
    let _lan = private_network(lab)?;
    let server = listen(lab.host(Host::Server), EVERYWHERE)?;
    let lan = fence::run_in(LAN, || TcpListener::bind(EVERYWHERE))??;
    let options = Options { allow: "[\"internet\"]", ..Options::default() };
    let bond = Bond::start(lab, PROGRAMS, options)?;
    let own = [SERVER_V4, addr::SERVER_EGRESS_V4.into(), addr::server_v4(0).into(), SERVER_V6];
    for target in own.into_iter().chain([LAN_HOST, METADATA]) {
        on(lab, Host::Client, &format!("ip route replace {target} dev {TUNNEL}"))?;
        let error = fails(lab, SocketAddr::new(target, PORT), Duration::from_secs(5))?;
        let kinds = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable, ErrorKind::PermissionDenied];
        ensure!(kinds.contains(&error.kind()), "{target} is forbidden: {error}");
    }
    ensure!(figure(&bond, Host::Server, "refused")? == 6, "the server was not asked");
    is_untouched(&server)?;
    is_untouched(&lan)?;
    bond.stop()
}

/// What is allowed is reached, but the metadata service never is. Another client is not of the
/// private networks.
pub(crate) fn another_client_is_not_reached_by_a_stream(lab: &Lab) -> anyhow::Result<()> {
    let _lan = private_network(lab)?;
    let server = listen(lab.host(Host::Server), EVERYWHERE)?;
    let client = listen(lab.host(Host::Client), EVERYWHERE)?;
    let lan = fence::run_in(LAN, || TcpListener::bind(EVERYWHERE))??;
    let key = PrivateKey::from_bytes([9; 32]);
    let allow = "[\"internet\", \"server\", \"private\"]";
    let options = Options { allow, enrolled: vec![key.public()], ..Options::default() };
    let bond = Bond::start(lab, PROGRAMS, options)?;
    for (target, listener) in [(SERVER_V4, &server), (LAN_HOST, &lan)] {
        connect(lab, SocketAddr::new(target, PORT), PATIENCE)?.with_context(|| format!("{target}"))?;
        listener.accept().with_context(|| format!("{target}"))?;
    }
    let error = fails(lab, SocketAddr::new(METADATA, PORT), Duration::from_secs(5))?;
    ensure!(error.kind() == ErrorKind::HostUnreachable, "{METADATA} is never allowed: {error}");
    is_untouched(&lan)?;

    let _other = fence::start_other_client(lab, &key)?;
    let to_server = format!("ping -n -c 1 -W 1 -I {TUNNEL} {SERVER_V4}");
    run(&mut Lan::command(&format!("ip route add {SERVER_V4} dev {TUNNEL}")))?;
    eventually("the second client is up", || run(&mut Lan::command(&to_server)))?;
    eventually("the second client opens streams", || {
        let before = figure(&bond, Host::Server, "opened")?;
        fence::run_in(LAN, || {
            TcpStream::connect_timeout(&SocketAddr::new(SERVER_V4, PORT), Duration::from_secs(2))
        })??;
        ensure!(figure(&bond, Host::Server, "opened")? > before);
        Ok(())
    })?;
    let to_client = SocketAddr::new(CLIENT_V4, PORT);
    let result = fence::run_in(LAN, || TcpStream::connect_timeout(&to_client, Duration::from_secs(3)))?;
    ensure!(result.is_err(), "a client connects to another one");
    is_untouched(&client)?;
    bond.stop()
}

/// The server's private network, whose host has the metadata service's address.
fn private_network(lab: &Lab) -> anyhow::Result<Lan> {
    let lan = Lan::start(lab)?;
    run(&mut Lan::command(&format!("ip address add {METADATA}/32 dev lo")))?;
    on(lab, Host::Server, &format!("ip route add {METADATA} via {LAN_HOST}"))?;
    Ok(lan)
}

/// The ends of connections come through as they are: a FIN one way, a RST either way; and a server
/// may speak first.
pub(crate) fn both_ends_are_told_of_an_end(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let listener = listen(lab.host(Host::Internet), SERVICE)?;
    let bytes = noise(1 << 20);

    // The first end says all and ends, then the second.
    for client_is_first in [true, false] {
        let (near, far) = pair(lab, &listener)?;
        let (mut first, mut second) = if client_is_first { (near, far) } else { (far, near) };
        let mut got = Vec::new();
        std::thread::scope(|scope| {
            let saying = scope.spawn(|| {
                first.write_all(&bytes)?;
                first.shutdown(Shutdown::Write)
            });
            second.read_to_end(&mut got)?;
            saying.join().map_err(|_| io::Error::other("a panic"))?
        })?;
        ensure!(got == bytes, "said and ended: {} of {} bytes", got.len(), bytes.len());
        second.write_all(b"an answer to all of it")?;
        drop(second);
        got.clear();
        first.read_to_end(&mut got)?;
        ensure!(got == b"an answer to all of it", "{got:?}");
    }
    none_is_open(&bond)?;

    let (said, _) = bytes.split_at(BEFORE_RESET);
    // A RST right after bytes that have yet to cross the bond: it overtakes none of them.
    for client_resets in [true, false] {
        let (near, far) = greeted_pair(lab, &listener)?;
        let (mut one, mut other) = if client_resets { (near, far) } else { (far, near) };
        let links = 0..lab.scenario().links.len();
        links.clone().for_each(|link| lab.cut(link));
        one.write_all(said)?;
        // The kernels of one host have it by then.
        std::thread::sleep(Duration::from_millis(200));
        reset(one)?;
        std::thread::sleep(Duration::from_millis(100));
        links.for_each(|link| lab.restore(link));
        let mut got = vec![0; BEFORE_RESET];
        let context = || format!("the client resets: {client_resets}");
        other.read_exact(&mut got).with_context(context)?;
        ensure!(got == said, "other bytes: {}", context());
        is_reset(&mut other).with_context(context)?;
    }
    none_is_open(&bond)?;
    opened(&bond, 4)?;
    bond.stop()
}

/// Many small writes stay in order, many connections at once all complete, and a reader that stalls
/// holds up no other connection.
pub(crate) fn connections_do_not_hold_up_each_other(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let listener = listen(lab.host(Host::Internet), SERVICE)?;
    small_writes(lab, &listener)?;
    many_at_once(lab, &listener)?;
    a_stalled_reader(lab, &listener)?;
    none_is_open(&bond)?;
    for host in [Host::Client, Host::Server] {
        ensure!(figure(&bond, host, "reset")? == 0, "the {} reset streams", host.name());
    }
    bond.stop()
}

/// 5,000 writes of a few bytes each, both ways at once.
fn small_writes(lab: &Lab, listener: &TcpListener) -> anyhow::Result<()> {
    let (near, far) = pair(lab, listener)?;
    let text = |name: &str| (0..5_000).map(|number| format!("{name} {number}\n")).collect::<Vec<_>>();
    let say = |mut socket: &TcpStream, name| {
        SockRef::from(socket).set_tcp_nodelay(true)?;
        for line in text(name) {
            socket.write_all(line.as_bytes())?;
        }
        socket.shutdown(Shutdown::Write)
    };
    let hear = |mut socket: &TcpStream, name: &str| {
        let mut got = String::new();
        socket.read_to_string(&mut got)?;
        anyhow::ensure!(got == text(name).concat(), "{name}: out of order, or {} bytes", got.len());
        Ok(())
    };
    std::thread::scope(|scope| {
        let saying = [scope.spawn(|| say(&near, "client")), scope.spawn(|| say(&far, "server"))];
        let hearing = scope.spawn(|| hear(&near, "server"));
        hear(&far, "client")?;
        hearing.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        for saying in saying {
            saying.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        }
        Ok(())
    })
}

/// Many connections, each of which is answered with what it said: 200 at once, and then 60 at once,
/// each of which is followed by 29 more as soon as it is over.
fn many_at_once(lab: &Lab, listener: &TcpListener) -> anyhow::Result<()> {
    for (count, rounds) in [(200, 1), (60, 30)] {
        answered_connections(lab, listener, count, rounds)
            .with_context(|| format!("{count} at once, {rounds} times"))?;
    }
    Ok(())
}

fn answered_connections(
    lab: &Lab,
    listener: &TcpListener,
    count: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let ask = |number: usize| {
        let mut socket = TcpStream::connect_timeout(&SERVICE, PATIENCE)?;
        patient(&socket)?;
        let said = format!("{number} ").repeat(2_000);
        socket.write_all(said.as_bytes())?;
        socket.shutdown(Shutdown::Write)?;
        let mut heard = String::new();
        socket.read_to_string(&mut heard)?;
        ensure!(heard == said, "connection {number} heard {} bytes of {}", heard.len(), said.len());
        Ok(())
    };
    let echo = |(mut socket, _): (TcpStream, SocketAddr)| {
        patient(&socket)?;
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard)?;
        socket.write_all(&heard)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count * rounds {
                let Ok(accepted) = listener.accept() else { return };
                scope.spawn(|| echo(accepted));
            }
        });
        // Threads of a thread on the host are on the host.
        lab.host(Host::Client).run(|| {
            std::thread::scope(|scope| {
                let ask = |number| (0..rounds).try_for_each(|_| ask(number));
                let asking: Vec<_> = (0..count).map(|number| scope.spawn(move || ask(number))).collect();
                asking.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a panic"))?)
            })
        })?
    })
}

/// One connection is not read, while another downloads a file; then it is.
fn a_stalled_reader(lab: &Lab, listener: &TcpListener) -> anyhow::Result<()> {
    let bytes = noise(3 * FILE_BYTES);
    let (mut near, mut far) = pair(lab, listener)?;
    std::thread::scope(|scope| {
        let saying = scope.spawn(|| {
            let result = far.write_all(&bytes);
            drop(far);
            result
        });
        let address = SocketAddr::from((addr::INTERNET_V4, 80));
        let _web = Web::start(lab.host(Host::Internet), address, noise(FILE_BYTES))?;
        run(curl(lab).arg("--output").arg(folder("got")).arg(format!("http://{address}/")))?;
        ensure!(std::fs::read(folder("got"))? == noise(FILE_BYTES), "the download differs");
        ensure!(!saying.is_finished(), "all was taken from a sender whose reader reads nothing");
        let mut got = Vec::new();
        near.read_to_end(&mut got)?;
        ensure!(got == bytes, "after the stall: {} of {} bytes", got.len(), bytes.len());
        Ok(saying.join().map_err(|_| anyhow::anyhow!("a panic"))??)
    })
}

/// A host behind the client, whose packets the client forwards; gone when dropped.
struct Behind;

impl Behind {
    const NAME: &str = "behind";

    fn start(lab: &Lab) -> anyhow::Result<Self> {
        run(Command::new("ip").args(["netns", "add", Self::NAME]))?;
        let behind = Self;
        for words in [
            "ip link add lan type veth peer name lan netns behind",
            "ip address add 192.168.60.1/24 dev lan",
            "ip link set lan up",
            "sysctl -q -w net.ipv4.ip_forward=1",
        ] {
            on(lab, Host::Client, words)?;
        }
        for words in [
            "ip link set lo up",
            "ip address add 192.168.60.2/24 dev lan",
            "ip link set lan up",
            "ip route add default via 192.168.60.1",
        ] {
            run(&mut fence::command_in(Self::NAME, words))?;
        }
        Ok(behind)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // The sandbox's end removes what is left.
        let _ = run(Command::new("ip").args(["netns", "del", Self::NAME]));
    }
}

/// A connection of a host behind the client is split like one of the client's own, and its errors
/// get there.
pub(crate) fn hosts_behind_the_client_are_served(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let _behind = Behind::start(lab)?;
    let address = SocketAddr::from((addr::INTERNET_V4, 80));
    let bytes = noise(FILE_BYTES);
    let web = Web::start(lab.host(Host::Internet), address, bytes.clone())?;
    let (file, got) = (folder("noise"), folder("got"));
    std::fs::write(&file, &bytes)?;
    let curl = |words: &[&str]| {
        let mut curl = fence::command_in(Behind::NAME, "curl -sS --fail --max-time 60");
        run(curl.args(words).arg(format!("http://{address}/noise")))
    };
    let (file, stored) = (file.display().to_string(), got.display().to_string());
    curl(&["--output", &stored])?;
    ensure!(std::fs::read(&got)? == bytes, "the download differs from the file");
    curl(&["--upload-file", &file])?;
    ensure!(web.seen().uploads == [bytes], "the upload differs from the file");
    opened(&bond, 2)?;
    drop(web);
    let result = fence::run_in(Behind::NAME, || TcpStream::connect_timeout(&address, PATIENCE))?;
    let refused = result.err().context("a closed port is connected")?;
    ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
    bond.stop()
}

/// Links die under a download and an upload: one falls silent, of another the interface goes down.
/// No byte is lost, and no connection is reset.
pub(crate) fn a_link_dies_under_a_stream(lab: &Lab) -> anyhow::Result<()> {
    const SILENT: usize = 1;
    const DOWN: usize = 2;
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let listener = listen(lab.host(Host::Internet), SERVICE)?;
    let bytes = noise(3 * FILE_BYTES);
    for client_receives in [true, false] {
        let (near, far) = pair(lab, &listener)?;
        let (mut from, mut to) = if client_receives { (far, near) } else { (near, far) };
        let mut got = Vec::new();
        std::thread::scope(|scope| {
            let saying = scope.spawn(|| {
                from.write_all(&bytes)?;
                from.shutdown(Shutdown::Write)
            });
            // Both links carry some of it by then.
            (&mut to).take(4 << 20).read_to_end(&mut got)?;
            lab.cut(SILENT);
            lab.set_client_interface(DOWN, false)?;
            to.read_to_end(&mut got)?;
            saying.join().map_err(|_| anyhow::anyhow!("a panic"))??;
            anyhow::Ok(())
        })
        .with_context(|| format!("the client receives: {client_receives}"))?;
        ensure!(got == bytes, "{} of {} bytes, or others", got.len(), bytes.len());
        lab.restore(SILENT);
        lab.set_client_interface(DOWN, true)?;
        bond.wait_until_up()?;
    }
    for host in [Host::Client, Host::Server] {
        ensure!(figure(&bond, host, "reset")? == 0, "the {} reset streams", host.name());
    }
    opened(&bond, 2)?;
    bond.stop()
}

/// A server that starts anew resets the connections of the one before, whose ends would else wait
/// for ever or, worse, take what they have for all of it; and a client that does. New connections
/// work. A server without streams has them go as packets.
pub(crate) fn a_restart_resets_streams(lab: &Lab) -> anyhow::Result<()> {
    let mut bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let listener = listen(lab.host(Host::Internet), SERVICE)?;
    let (mut near, mut far) = greeted_pair(lab, &listener)?;
    bond.kill(Host::Server)?;
    bond.start_server()?;
    is_reset(&mut near).context("the client's end, after the server's restart")?;
    is_reset(&mut far).context("the destination's end, after the server's restart")?;
    bond.wait_until_up()?;
    files_arrive_whole(lab).context("after the server's restart")?;

    let (near, mut far) = greeted_pair(lab, &listener)?;
    bond.kill(Host::Client)?;
    bond.start_client()?;
    is_reset(&mut far).context("the server's end, after the client's restart")?;
    drop(near);
    bond.wait_until_up()?;
    files_arrive_whole(lab).context("after the client's restart")?;

    let file = bond.configuration(Host::Server);
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("split = \"auto\"", "split = \"off\""))?;
    bond.kill(Host::Server)?;
    bond.start_server()?;
    bond.wait_until_up()?;
    let before = figure(&bond, Host::Client, "opened")?;
    files_arrive_whole(lab).context("as packets")?;
    ensure!(figure(&bond, Host::Client, "opened")? == before, "a server without streams was asked for one");
    ensure!(figure(&bond, Host::Server, "opened")? == 0, "a server without streams opened one");
    bond.stop()
}

/// A client that may no longer connect is cut off at once.
pub(crate) fn streams_of_a_revoked_client_end(lab: &Lab) -> anyhow::Result<()> {
    let (bond, _) = joined(lab)?;
    let listener = listen(lab.host(Host::Internet), SERVICE)?;
    on(lab, Host::Client, &format!("ip route add {} dev {TUNNEL}", addr::INTERNET_V4))?;
    let (mut near, mut far) = greeted_pair(lab, &listener)?;
    opened(&bond, 1)?;
    bond.bondctl(&["revoke", "home"])?;
    is_reset(&mut far).context("the destination's end")?;
    is_reset(&mut near).context("the client's end")?;
    bond.stop()
}

/// As [`pair`]; each end has heard of the other.
fn greeted_pair(lab: &Lab, listener: &TcpListener) -> anyhow::Result<(TcpStream, TcpStream)> {
    let (mut near, mut far) = pair(lab, listener)?;
    let mut got = [0; 5];
    near.write_all(b"hello")?;
    far.read_exact(&mut got)?;
    far.write_all(&got)?;
    near.read_exact(&mut got)?;
    Ok((near, far))
}

/// A figure of TCP's extensions on the client.
fn extension(lab: &Lab, name: &str) -> anyhow::Result<u64> {
    let text = lab.host(Host::Client).run(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))??;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, figures) = (rows.next().context("no names")?, rows.next().context("no figures")?);
    let found = names.split(' ').zip(figures.split(' ')).find(|(one, _)| *one == name);
    Ok(found.with_context(|| format!("no {name}"))?.1.parse()?)
}

/// TCP Fast Open: bytes in the SYN arrive once, whether the client's kernel takes them from it or
/// has them sent again; and a SYN with bytes to a closed port is refused.
pub(crate) fn a_syn_with_data_is_answered(lab: &Lab) -> anyhow::Result<()> {
    const MSG_FASTOPEN: i32 = 0x2000_0000;
    let opens = |to: SocketAddr, bytes: &[u8]| {
        lab.host(Host::Client).run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.send_to_with_flags(bytes, &to.into(), MSG_FASTOPEN)?;
            let socket = TcpStream::from(socket);
            patient(&socket)?;
            io::Result::Ok(socket)
        })
    };
    let bytes = noise(1_000);
    // Bytes in each SYN, without a cookie; then any listener takes them, too.
    for (setting, counter) in [("5", "TCPFastOpenActiveFail"), ("1543", "TCPFastOpenActive")] {
        on(lab, Host::Client, &format!("sysctl -q -w net.ipv4.tcp_fastopen={setting}"))?;
        let before = extension(lab, counter)?;
        let bond = Bond::start(lab, PROGRAMS, Options::default())?;
        let listener = listen(lab.host(Host::Internet), SERVICE)?;
        let mut near = opens(SERVICE, &bytes)?.with_context(|| format!("fast open {setting}"))?;
        let (mut far, _) = listener.accept()?;
        patient(&far)?;
        near.shutdown(Shutdown::Write)?;
        let mut got = Vec::new();
        far.read_to_end(&mut got)?;
        ensure!(got == bytes, "fast open {setting}: {} of {} bytes, or others", got.len(), bytes.len());
        far.write_all(b"an answer")?;
        drop(far);
        got.clear();
        near.read_to_end(&mut got)?;
        ensure!(got == b"an answer", "fast open {setting}: {got:?}");
        ensure!(extension(lab, counter)? > before, "fast open {setting}: no bytes were in the SYN");
        opened(&bond, 1)?;
        drop(listener);
        let refused = opens(SERVICE, &bytes)?.and_then(|mut socket| socket.read(&mut [0]));
        let error = refused.err().context("a closed port is connected")?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "fast open {setting}: {error}");
        none_is_open(&bond)?;
        bond.stop()?;
    }
    Ok(())
}

/// Connections to ssh's port survive restarts as packets, unless all are to be split.
pub(crate) fn ssh_goes_as_packets(lab: &Lab) -> anyhow::Result<()> {
    let ssh = SocketAddr::from((addr::INTERNET_V4, 22));
    for (split, count) in [("auto", 0), ("all", 2), ("off", 0)] {
        let bond = Bond::start(lab, PROGRAMS, Options { split: [split, "auto"], ..Options::default() })?;
        let peers = files_cross(lab, Host::Internet, ssh).with_context(|| split.to_owned())?;
        ensure!(peers == [addr::SERVER_EGRESS_V4; 2], "{peers:?}");
        opened(&bond, count).with_context(|| split.to_owned())?;
        bond.stop()?;
    }
    Ok(())
}

/// A rule splits what lives long, and has others go as packets.
pub(crate) fn rules_say_what_ends_at_the_bond(lab: &Lab) -> anyhow::Result<()> {
    let rules = "[[qos.rule]]\nprotocol = \"tcp\"\nports = [\"22\"]\nsplit = true\n\
                 [[qos.rule]]\nports = [\"8080\"]\nsplit = false\n";
    let bond = Bond::start(lab, PROGRAMS, Options { rules, ..Options::default() })?;
    for (port, count) in [(22, 2), (PORT, 2), (80, 4)] {
        files_cross(lab, Host::Internet, SocketAddr::from((addr::INTERNET_V4, port)))?;
        opened(&bond, count).with_context(|| format!("port {port}"))?;
    }
    bond.stop()
}

/// The bytes that the links carried so far.
fn carried(lab: &Lab, direction: Direction) -> u64 {
    (0..lab.scenario().links.len()).map(|link| lab.counters(link, direction).carried_bytes).sum()
}

/// A figure of compression in the status of `host`.
fn compressed(bond: &Bond<'_>, host: Host, key: &str) -> anyhow::Result<u64> {
    let status = bond.status(host)?;
    let figure = status.pointer(&format!("/compression/{key}")).and_then(Value::as_u64);
    figure.with_context(|| format!("no {key}: {status}"))
}

/// A download and an upload of these bytes by real TCP, which arrive whole: what the links carried
/// for each.
fn cross(lab: &Lab, bytes: &[u8]) -> anyhow::Result<[u64; 2]> {
    let (file, got, stored) = (folder("file"), folder("got"), folder("stored"));
    std::fs::write(&file, bytes)?;
    let web = Web::start(lab.host(Host::Internet), SERVICE, bytes.to_vec())?;
    let url = format!("http://{SERVICE}/file");
    let before = carried(lab, Direction::Down);
    run(curl(lab).arg("--output").arg(&got).arg(&url))?;
    let down = carried(lab, Direction::Down) - before;
    ensure!(sha256(&got)? == sha256(&file)?, "the download differs from the file");
    let before = carried(lab, Direction::Up);
    run(curl(lab).arg("--upload-file").arg(&file).arg(&url))?;
    let up = carried(lab, Direction::Up) - before;
    std::fs::write(&stored, web.seen().uploads.first().context("nothing was uploaded")?)?;
    ensure!(sha256(&stored)? == sha256(&file)?, "the upload differs from the file");
    Ok([down, up])
}

/// Over two links of 2 Mbit/s text takes less than a half of its bytes on the links, in both
/// directions, and bytes that do not shrink take no more than they do without compression.
pub(crate) fn what_shrinks_is_compressed_over_slow_links(lab: &Lab) -> anyhow::Result<()> {
    let (text, noise) = (text(3 << 19)?, noise(1 << 20));
    let whole = |bytes: &[u8]| u64::try_from(bytes.len());
    let mut noises = Vec::new();
    for mode in ["off", "auto"] {
        let bond = Bond::start(lab, PROGRAMS, Options { compression: [mode; 2], ..Options::default() })?;
        let sums = |keys: [&str; 2]| -> anyhow::Result<[u64; 2]> {
            Ok([compressed(&bond, Host::Client, keys[0])?, compressed(&bond, Host::Server, keys[1])?])
        };
        let texts = cross(lab, &text)?;
        if mode == "off" {
            ensure!(texts.iter().all(|bytes| *bytes > whole(&text).unwrap_or(0)), "without: {texts:?}");
            ensure!(sums(["tx_plain_bytes", "tx_plain_bytes"])? == [0, 0], "compressed although it is off");
        } else {
            ensure!(texts.iter().all(|bytes| *bytes * 2 < whole(&text).unwrap_or(0)), "with: {texts:?}");
            let (plain, sent) = (sums(["tx_plain_bytes"; 2])?, sums(["tx_bytes"; 2])?);
            for (plain, sent) in plain.into_iter().zip(sent) {
                ensure!(plain > whole(&text)? * 9 / 10 && sent * 5 < plain * 2, "{plain} became {sent}");
            }
            ensure!(sums(["rx_plain_bytes"; 2])? == [plain[1], plain[0]], "the peer counts otherwise");
        }
        noises.push(cross(lab, &noise)?);
        // Bytes of streams, of which the peer read all: less than a hundredth is added.
        let all = whole(&text)? + whole(&noise)?;
        let streams = figure(&bond, Host::Server, "tx_bytes")?;
        ensure!(streams <= all + all / 100, "{streams} bytes of streams for {all}");
        ensure!(figure(&bond, Host::Server, "reset")? == 0, "streams were reset");
        bond.stop()?;
    }
    let [off, auto] = noises.as_slice() else { bail!("two modes") };
    // Heartbeats and what was sent again differ between two runs.
    let is_near = off.iter().zip(auto).all(|(off, auto)| auto * 20 <= off * 21);
    ensure!(is_near, "noise took {off:?} bytes without compression, and {auto:?} with");
    Ok(())
}

/// A connection is compressed only if both sides want it so.
pub(crate) fn a_side_without_compression_gets_none(lab: &Lab) -> anyhow::Result<()> {
    let text = text(1 << 18)?;
    for compression in [["auto", "off"], ["off", "on"]] {
        let bond = Bond::start(lab, PROGRAMS, Options { compression, ..Options::default() })?;
        cross(lab, &text)?;
        opened(&bond, 2)?;
        for host in [Host::Client, Host::Server] {
            for key in ["tx_bytes", "rx_bytes"] {
                ensure!(compressed(&bond, host, key)? == 0, "{compression:?}: {key} of the {}", host.name());
            }
        }
        bond.stop()?;
    }
    Ok(())
}
