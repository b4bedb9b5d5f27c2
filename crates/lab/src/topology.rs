//! The three namespaces and their devices, addresses and routes; see the picture in the crate's
//! head.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bonding_netem::Scenario;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::addr;
use crate::error::LabError;
use crate::host::{Host, HostRef, output};
use crate::requirements::{Requirement, find, search_path};

/// Every link's MTU, in bytes: Ethernet's.
const MTU: u16 = 1_500;
/// The metric of the client's route over the first link. Chosen: above 0, which a test's own route
/// may take.
const METRIC: u16 = 100;

/// What a switch that limits its rate passes at once. Chosen: a super-packet of 64 KiB fits.
const BURST: &str = "80kb";

/// The namespaces of a lab; removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespaces(());

impl Namespaces {
    /// Makes them, empty.
    pub(crate) fn create() -> Result<Self, LabError> {
        if find("ip").is_none() {
            return Err(missing(&[Requirement { program: "ip", package: "iproute2" }]));
        }
        let existing = Host::ALL.iter().find(|host| Path::new("/run/netns").join(host.name()).exists());
        if let Some(host) = existing {
            let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            let step = format!("make the host {}: only one lab at a time per sandbox", host.name());
            return Err(LabError::Io { step, source });
        }
        // From here on the namespaces that exist are removed at the end.
        let namespaces = Self(());
        for host in Host::ALL {
            ip(&["netns", "add", host.name()], None)?;
        }
        Ok(namespaces)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for host in Host::ALL {
            if Path::new("/run/netns").join(host.name()).exists() {
                // The sandbox's end removes a namespace that is left.
                let _ = ip(&["netns", "del", host.name()], None);
            }
        }
    }
}

/// The error for programs that are missing.
pub(crate) fn missing(list: &[Requirement]) -> LabError {
    let join = |pick: fn(&Requirement) -> &str| list.iter().map(pick).collect::<Vec<_>>().join(" ");
    LabError::Missing { programs: join(|one| one.program), packages: join(|one| one.package) }
}

/// The two ends of a link.
pub(crate) struct LinkEnds {
    pub(crate) client: SyncDevice,
    pub(crate) server: SyncDevice,
}

/// Makes devices, addresses and routes in the empty namespaces.
pub(crate) fn build(scenario: &Scenario) -> Result<Vec<LinkEnds>, LabError> {
    let names = names(scenario);
    set_up_hosts()?;
    let client = HostRef::new(Host::Client).run(|| open_devices(&names))??;
    let server = HostRef::new(Host::Server).run(|| open_devices(&names))??;
    address(&names, false)?;
    Ok(client.into_iter().zip(server).map(|(client, server)| LinkEnds { client, server }).collect())
}

/// The same with a veth pair for each link.
pub(crate) fn build_wired(scenario: &Scenario) -> Result<(), LabError> {
    let names = names(scenario);
    set_up_hosts()?;
    let mut text = String::new();
    for name in &names {
        line(
            &mut text,
            &format!("link add name {name} type veth peer name {name} netns {}", Host::Server.name()),
        );
    }
    batch(Host::Client, &text)?;
    address(&names, true)
}

/// The same with a switch between the two ends of each link: a bridge in the internet's namespace,
/// which can limit what it passes on ([`limit`]).
pub(crate) fn build_switched(scenario: &Scenario) -> Result<(), LabError> {
    let names = names(scenario);
    set_up_hosts()?;
    let internet = Host::Internet.name();
    let mut switches = String::new();
    for name in &names {
        line(&mut switches, &format!("link add name {name} type bridge"));
        for host in SWITCHED {
            let port = port(name, host);
            batch(host, &format!("link add name {name} type veth peer name {port} netns {internet}\n"))?;
            line(&mut switches, &format!("link set dev {port} master {name} up"));
        }
        line(&mut switches, &format!("link set dev {name} up"));
    }
    batch(Host::Internet, &switches)?;
    address(&names, true)
}

/// The hosts at a switch.
const SWITCHED: [Host; 2] = [Host::Client, Host::Server];

/// A switch's port to a host.
fn port(link: &str, host: Host) -> String {
    format!("{link}-{}", if host == Host::Client { 'c' } else { 's' })
}

/// From now on the switch of a link passes on `bps` bits per second each way, counted in Ethernet
/// frames, and drops what waits longer than `queue` (`tc`'s token bucket).
pub(crate) fn limit(link: &str, bps: u64, queue: Duration) -> Result<(), LabError> {
    for host in SWITCHED {
        let (port, rate, latency) =
            (port(link, host), format!("{bps}bit"), format!("{}ms", queue.as_millis()));
        let mut command = HostRef::new(Host::Internet).command("tc");
        command.args(["qdisc", "replace", "dev", &port, "root", "tbf", "rate", &rate]);
        output(command.args(["burst", BURST, "latency", &latency]), None)?;
    }
    Ok(())
}

fn names(scenario: &Scenario) -> Vec<&str> {
    scenario.links.iter().map(|link| link.name.as_str()).collect()
}

fn set_up_hosts() -> Result<(), LabError> {
    let ipv6 = has_ipv6();
    for host in Host::ALL {
        HostRef::new(host).run(|| set_kernel_parameters(ipv6))??;
    }
    Ok(())
}

/// Addresses and routes, once the devices of the links are there.
fn address(names: &[&str], wired: bool) -> Result<(), LabError> {
    let ipv6 = has_ipv6();
    batch(Host::Client, &client_commands(names, ipv6, wired))?;
    batch(Host::Server, &server_commands(names, ipv6))?;
    batch(Host::Internet, &internet_commands(ipv6))
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// On the thread of a host: routes may be asymmetric, the kernel sends no packet of its own, and no
/// TCP connection learns from an earlier one.
fn set_kernel_parameters(ipv6: bool) -> Result<(), LabError> {
    let mut parameters = vec![
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/tcp_no_metrics_save", "1"),
    ];
    if ipv6 {
        parameters.extend([
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            ("ipv6/conf/default/addr_gen_mode", "1"),
        ]);
    }
    for (name, value) in parameters {
        let file = Path::new("/proc/sys/net").join(name);
        fs::write(&file, value).map_err(LabError::io(format!("set {} to {value}", file.display())))?;
    }
    Ok(())
}

/// On the thread of a host: the ends of its links.
fn open_devices(names: &[&str]) -> Result<Vec<SyncDevice>, LabError> {
    let open = |name: &&str| {
        let device = DeviceBuilder::new().name(*name).mtu(MTU).with(|options| {
            options.offload(false).packet_information(false);
        });
        let device = device.build_sync()?;
        device.set_nonblocking(true)?;
        Ok(device)
    };
    names.iter().map(|name| open(name).map_err(LabError::io(format!("make the device {name}")))).collect()
}

fn client_commands(names: &[&str], ipv6: bool, wired: bool) -> String {
    let mut text = String::from("link set dev lo up\n");
    for (name, index) in names.iter().zip(0_u8..) {
        let metric = METRIC + u16::from(index);
        let (v4, v6) = (addr::client_v4(index), addr::client_v6(index));
        link(&mut text, name, &format!("{v4}/24"));
        line(&mut text, &format!("route add {}/32 dev {name} src {v4} metric {metric}", addr::SERVER_V4));
        if ipv6 {
            line(&mut text, &format!("address add {v6}/64 dev {name} nodad"));
            // On Ethernet a host does not answer for an address of another of its devices, as it
            // does for IPv4.
            let via = if wired { format!("via {}", addr::server_v6(index)) } else { String::new() };
            line(&mut text, &format!("route add {}/128 {via} dev {name} metric {metric}", addr::SERVER_V6));
        }
    }
    text
}

/// Switches the client's end of link `index` off, or on again with its addresses and routes.
pub(crate) fn set_client_link(index: u8, name: &str, up: bool) -> Result<(), LabError> {
    if !up {
        return batch(Host::Client, &format!("link set dev {name} down\n"));
    }
    let metric = METRIC + u16::from(index);
    let (v4, v6) = (addr::client_v4(index), addr::client_v6(index));
    let mut text = format!("link set dev {name} up\n");
    // The kernel forgot the addresses and routes that need the interface.
    line(&mut text, &format!("address replace {v4}/24 dev {name}"));
    line(&mut text, &format!("route replace {}/32 dev {name} src {v4} metric {metric}", addr::SERVER_V4));
    if has_ipv6() {
        line(&mut text, &format!("address replace {v6}/64 dev {name} nodad"));
        line(&mut text, &format!("route replace {}/128 dev {name} metric {metric}", addr::SERVER_V6));
    }
    batch(Host::Client, &text)
}

fn server_commands(names: &[&str], ipv6: bool) -> String {
    let eth = addr::EGRESS_DEVICE;
    let mut text = String::from("link set dev lo up\n");
    line(&mut text, &format!("address add {}/32 dev lo", addr::SERVER_V4));
    line(
        &mut text,
        &format!("link add name {eth} type veth peer name {eth} netns {}", Host::Internet.name()),
    );
    line(&mut text, &format!("address add {}/24 dev {eth}", addr::SERVER_EGRESS_V4));
    if ipv6 {
        line(&mut text, &format!("address add {}/128 dev lo nodad", addr::SERVER_V6));
        line(&mut text, &format!("address add {}/64 dev {eth} nodad", addr::SERVER_EGRESS_V6));
    }
    line(&mut text, &format!("link set dev {eth} up"));
    line(&mut text, &format!("route add default via {} dev {eth}", addr::INTERNET_V4));
    if ipv6 {
        line(&mut text, &format!("route add ::/0 via {} dev {eth}", addr::INTERNET_V6));
    }
    for (name, index) in names.iter().zip(0_u8..) {
        // Answers leave with the public address, also from a socket that chose none.
        link(&mut text, name, &format!("{}/24 noprefixroute", addr::server_v4(index)));
        line(
            &mut text,
            &format!("route add {}/24 dev {name} src {}", addr::network_v4(index), addr::SERVER_V4),
        );
        if ipv6 {
            line(
                &mut text,
                &format!("address add {}/64 dev {name} nodad noprefixroute", addr::server_v6(index)),
            );
            line(
                &mut text,
                &format!("route add {}/64 dev {name} src {}", addr::network_v6(index), addr::SERVER_V6),
            );
        }
    }
    text
}

fn internet_commands(ipv6: bool) -> String {
    let eth = addr::EGRESS_DEVICE;
    let mut text = String::from("link set dev lo up\n");
    line(&mut text, &format!("address add {}/24 dev {eth}", addr::INTERNET_V4));
    if ipv6 {
        line(&mut text, &format!("address add {}/64 dev {eth} nodad", addr::INTERNET_V6));
    }
    line(&mut text, &format!("link set dev {eth} up"));
    text
}

fn link(text: &mut String, name: &str, v4: &str) {
    line(text, &format!("link set dev {name} mtu {MTU} txqueuelen 1000 up"));
    line(text, &format!("address add dev {name} {v4}"));
}

fn line(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

fn batch(host: Host, commands: &str) -> Result<(), LabError> {
    let mut result = ip(&["-n", host.name(), "-batch", "-"], Some(commands));
    if let Err(LabError::Failed { message, .. }) = &mut result {
        // ip names the line only by its number.
        let failed = message.rsplit_once("-:").and_then(|(_, number)| number.trim().parse::<usize>().ok());
        let line = failed.and_then(|number| commands.lines().nth(number.saturating_sub(1)));
        *message = format!("{message} ({})", line.unwrap_or("unknown line"));
    }
    result
}

fn ip(arguments: &[&str], input: Option<&str>) -> Result<(), LabError> {
    output(Command::new("ip").args(arguments).env("PATH", search_path()), input).map(drop)
}
