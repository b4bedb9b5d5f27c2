//! What the client sends into the bond by itself (`[routing] capture`), of its own host and of a
//! network behind it, and that nothing of it leaves beside the bond. No test makes a route into the
//! tunnel. The main table of the client's host has default routes over its first link.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context as _, ensure};
use bonding_lab::{Host, Lab, addr};
use bonding_testkit::bond::{Bond, Options, SERVER_V4, TUNNEL, run};
use bonding_testkit::wait::eventually;
use bonding_testkit::web::{Web, noise};

use crate::PROGRAMS;
use crate::fence::{command_in, on};
use crate::lifecycle::traces;
use crate::sealed::{invite, route_over_all_links};
use crate::traffic::{FILE_BYTES, folder, sha256};

/// The host in the network behind the client, and its addresses.
const HOME: &str = "home";
const HOME_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 9, 2));
const ROUTER_V4: &str = "192.168.9.1";
const INTERNET_V4: IpAddr = IpAddr::V4(addr::INTERNET_V4);
const INTERNET_V6: IpAddr = IpAddr::V6(addr::INTERNET_V6);
/// An address of the server's host that the client's host knows by its default route only.
const FAR: &str = "192.0.2.9";

/// The network behind the client; gone when dropped.
struct Home<'lab> {
    lab: &'lab Lab,
}

impl<'lab> Home<'lab> {
    fn start(lab: &'lab Lab) -> anyhow::Result<Self> {
        run(Command::new("ip").args(["netns", "add", HOME]))?;
        let home = Self { lab };
        let link = first_link(lab)?;
        for words in [
            // As distributions have it, also for devices to come.
            "sysctl -q -w net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1",
            "ip link add home type veth peer name home netns home",
            "ip address add 192.168.9.1/24 dev home",
            "ip address add fd09::1/64 dev home nodad",
            "ip link set home up",
            &format!("ip route add default dev {link} metric 50"),
            &format!("ip -6 route add default dev {link} metric 50"),
            // What leaves beside the bond, by its family.
            "nft add table inet beside",
            "nft add chain inet beside out { type filter hook postrouting priority 300 ; }",
        ] {
            on(lab, Host::Client, words)?;
        }
        let links: Vec<&str> = lab.scenario().links.iter().map(|link| link.name.as_str()).collect();
        let links = links.join(", ");
        for target in [format!("ip daddr {INTERNET_V4}"), format!("ip6 daddr {INTERNET_V6}")] {
            let rule = format!("oifname {{ {links} }} {target} counter");
            on(lab, Host::Client, &format!("nft add rule inet beside out {rule}"))?;
        }
        for words in [
            "ip link set lo up",
            "ip address add 192.168.9.2/24 dev home",
            "ip address add fd09::2/64 dev home nodad",
            "ip link set home up",
            "ip route add default via 192.168.9.1",
            "ip route add default via fd09::1",
        ] {
            run(&mut command_in(HOME, words))?;
        }
        on(lab, Host::Server, &format!("ip address add {FAR}/32 dev lo"))?;
        Ok(home)
    }

    /// Whether a ping from the network behind the client is answered; and what it prints.
    fn ping(&self, target: IpAddr) -> anyhow::Result<(bool, String)> {
        pinged(&mut command_in(HOME, &format!("ping -n -c 3 -i 0.2 -W 1 {target}")))
    }

    fn reaches(&self, target: IpAddr) -> anyhow::Result<()> {
        eventually(&format!("the network behind the client reaches {target}"), || {
            let (is_answered, said) = self.ping(target)?;
            ensure!(is_answered, "{said}");
            Ok(())
        })
    }

    /// A download in the network behind the client: whole, and from the server's address.
    fn downloads(&self) -> anyhow::Result<()> {
        let bytes = noise(FILE_BYTES);
        let (file, got) = (folder("noise"), folder("got"));
        std::fs::write(&file, &bytes)?;
        let address = SocketAddr::from((addr::INTERNET_V4, 80));
        let web = Web::start(self.lab.host(Host::Internet), address, bytes)?;
        let words =
            format!("curl --silent --show-error --fail --max-time 60 http://{address}/noise --output");
        run(command_in(HOME, &words).arg(&got))?;
        ensure!(sha256(&got)? == sha256(&file)?, "the download differs from the file");
        let peers = web.seen().peers;
        ensure!(peers == [addr::SERVER_EGRESS_V4], "seen by the web server: {peers:?}");
        Ok(())
    }

    /// The packets to the internet host that left beside the bond.
    fn beside(&self) -> anyhow::Result<u64> {
        let rules = on(self.lab, Host::Client, "nft list table inet beside")?;
        let counts = rules.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next());
        counts.map(|count| Ok(count.parse::<u64>()?)).sum()
    }
}

impl Drop for Home<'_> {
    fn drop(&mut self) {
        // The sandbox's end removes what is left.
        let _ = run(Command::new("ip").args(["netns", "del", HOME]));
    }
}

fn pinged(ping: &mut Command) -> anyhow::Result<(bool, String)> {
    let said = String::from_utf8_lossy(&ping.output()?.stdout).into_owned();
    Ok((said.contains(" bytes from "), said))
}

/// Whether a ping from the client's host is answered.
fn answers(lab: &Lab, target: IpAddr) -> anyhow::Result<bool> {
    let mut ping = lab.host(Host::Client).command("ping");
    Ok(pinged(ping.args(["-n", "-c", "3", "-i", "0.2", "-W", "1"]).arg(target.to_string()))?.0)
}

fn first_link(lab: &Lab) -> anyhow::Result<String> {
    Ok(lab.scenario().links.first().context("no links")?.name.clone())
}

/// The interface over which the client's host sends to the internet host.
fn way(lab: &Lab, from: &str) -> anyhow::Result<String> {
    let printed = on(lab, Host::Client, format!("ip route get {INTERNET_V4} {from}").trim_end())?;
    let mut words = printed.split_whitespace().skip_while(|word| *word != "dev").skip(1);
    Ok(words.next().context(printed.clone())?.to_owned())
}

/// A bond whose client captures as `routing` says; nothing runs yet.
fn configure<'lab>(lab: &'lab Lab, routing: &str) -> anyhow::Result<Bond<'lab>> {
    let bond = Bond::configure(lab, PROGRAMS, Options::default())?;
    let file = bond.configuration(Host::Client);
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{text}\n[routing]\n{routing}\n"))?;
    Ok(bond)
}

fn is_as_before(lab: &Lab, before: &str) -> anyhow::Result<()> {
    let after = without_counts(&traces(lab, Host::Client)?);
    ensure!(before == after, "the client's host is not as it was\nbefore:\n{before}\nafter:\n{after}");
    Ok(())
}

/// The traces without the counters of the test's own table.
fn without_counts(text: &str) -> String {
    text.lines().filter(|line| !line.contains("counter packets")).map(|line| format!("{line}\n")).collect()
}

/// With `capture = "lan"` a host behind the client uses the bond, whose server knows nothing of its
/// network; the router itself does not. A crash lets nothing out, nor do the service manager's
/// clean-up and the next start. At the end all is as it was.
pub(crate) fn the_lan_goes_into_the_bond_and_nowhere_else(lab: &Lab) -> anyhow::Result<()> {
    let home = Home::start(lab)?;
    // A router that forwards already: without the bond, its network's packets leave over the line.
    on(lab, Host::Client, "sysctl -q -w net.ipv4.ip_forward=1")?;
    home.ping(INTERNET_V4)?;
    ensure!(home.beside()? > 0, "nothing leaves over the line");
    let before = without_counts(&traces(lab, Host::Client)?);
    let link = first_link(lab)?;
    let mut bond = configure(lab, "capture = \"lan\"\nlan = [\"192.168.9.0/24\"]")?;
    bond.start_server()?;
    bond.start_client_alone()?;
    home.reaches(INTERNET_V4)?;
    // Until the client had started, packets left over the line.
    let already = home.beside()?;
    home.downloads()?;
    ensure!(home.ping(ROUTER_V4.parse()?)?.0, "the router is not reachable from its network");
    ensure!(way(lab, "")? == link, "the router's own packets are captured");
    let status = bond.status(Host::Client)?;
    ensure!(status.pointer("/routing/what") == Some(&"what comes from 192.168.9.0/24".into()), "{status}");

    // Packets at any moment from here on.
    let mut all_along = command_in(HOME, &format!("ping -n -q -i 0.002 {INTERNET_V4}"));
    let _all_along = lab.spawn(all_along.stdout(std::process::Stdio::null()))?;
    bond.kill(Host::Client)?;
    let is_held = |moment: &str| {
        let (is_answered, said) = home.ping(INTERNET_V4)?;
        ensure!(!is_answered, "{moment}: {said}");
        let way = way(lab, &format!("from {HOME_V4} iif home"));
        ensure!(way.is_err(), "{moment}: it goes by {way:?}");
        anyhow::Ok(())
    };
    is_held("after a crash")?;
    bond.clean_up_client("signal")?;
    is_held("after the service manager's clean-up")?;
    ensure!(way(lab, "")? == link, "the router's own packets are held");
    bond.start_client_alone()?;
    home.reaches(INTERNET_V4)?;
    let beside = home.beside()? - already;
    ensure!(beside == 0, "{beside} packets left beside the bond");
    bond.stop()?;
    is_as_before(lab, &before)
}

/// The configuration that `join` writes, with one line of it switched on, serves a network behind
/// the client: no route, rule or address is made by hand.
pub(crate) fn an_invitation_and_one_line_serve_a_lan(lab: &Lab) -> anyhow::Result<()> {
    let home = Home::start(lab)?;
    route_over_all_links(lab)?;
    let mut bond = Bond::start_defaults(lab, PROGRAMS)?;
    let joined = bond.join(&invite(&bond, "home")?, "joined.key")?;
    ensure!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let file = bond.configuration(Host::Client);
    let text = std::fs::read_to_string(&file)?;
    let captured = text.replace("#capture = \"lan\"", "capture = \"lan\"");
    ensure!(captured != text, "join does not write the line: {text}");
    let socket = folder("client.sock");
    std::fs::write(&file, format!("{captured}[status]\nsocket = \"{}\"\n", socket.display()))?;
    bond.start_client_alone()?;
    home.reaches(INTERNET_V4)?;
    home.downloads()?;
    bond.stop()
}

/// With `capture = "all"` the router's own packets use the bond, too, of both families; the bond's
/// datagrams do not, and answers to those who come over a line go back over it.
pub(crate) fn all_goes_into_the_bond_but_its_own_datagrams(lab: &Lab) -> anyhow::Result<()> {
    let home = Home::start(lab)?;
    let before = without_counts(&traces(lab, Host::Client)?);
    let mut bond = configure(lab, "capture = \"all\"\nrule_priority = 5000")?;
    bond.start_server()?;
    bond.start_client_alone()?;
    bond.wait_until_up()?;
    home.reaches(INTERNET_V4)?;
    home.downloads()?;
    for target in [INTERNET_V4, INTERNET_V6] {
        eventually(&format!("the router reaches {target}"), || {
            ensure!(answers(lab, target)?, "no answer");
            Ok(())
        })?;
    }
    ensure!(way(lab, "")? == TUNNEL);
    let line = addr::client_v4(0);
    let mut ping = lab.host(Host::Server).command("ping");
    let (is_answered, said) =
        pinged(ping.args(["-n", "-c", "3", "-i", "0.2", "-W", "1", "-I", FAR]).arg(line.to_string()))?;
    ensure!(is_answered, "a question that came over a line is not answered over it: {said}");

    // Another program reloads the host's rules.
    on(lab, Host::Client, &format!("nft delete table inet bonding-{TUNNEL}"))?;
    home.reaches(INTERNET_V4).context("after a reload of the firewall")?;
    others_take_from_the_bond(&home, &bond)?;

    bond.kill(Host::Client)?;
    for target in [INTERNET_V4, INTERNET_V6] {
        ensure!(!answers(lab, target)?, "{target} is reached without the bond");
    }
    let beside = home.beside()?;
    ensure!(beside == 0, "{beside} packets left beside the bond");
    bond.clean_up_client("success")?;
    is_as_before(lab, &before).context("after a clean-up")?;
    bond.start_client_alone()?;
    bond.wait_until_up()?;
    bond.stop()?;
    is_as_before(lab, &before)
}

/// Another program removes the bond's rules, sets its device down, takes its addresses: all are put
/// back while the client runs.
fn others_take_from_the_bond(home: &Home<'_>, bond: &Bond<'_>) -> anyhow::Result<()> {
    let show = |what: &str| on(home.lab, Host::Client, what);
    let addresses = || {
        let shown = show(&format!("ip -o address show dev {TUNNEL}"))?;
        let mut all: Vec<String> =
            shown.lines().filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned)).collect();
        all.retain(|address| !address.starts_with("fe80"));
        all.sort();
        anyhow::Ok(all)
    };
    let rules = || {
        let shown = show("ip rule show")?;
        let mut all: Vec<String> = shown.lines().map(str::to_owned).collect();
        all.sort();
        anyhow::Ok(all)
    };
    let (all, before) = (rules()?, addresses()?);
    ensure!(!before.is_empty(), "the tunnel has no address");
    let removals =
        ["5000", "5001", "5002", "5003"].map(|priority| format!("ip rule del priority {priority}"));
    let others =
        [removals.join("; "), format!("ip link set {TUNNEL} down"), format!("ip address flush dev {TUNNEL}")];
    for what in others {
        // Not every priority has a rule.
        let mut command = home.lab.host(Host::Client).command("sh");
        command.args(["-c", &what]).output()?;
        eventually(&format!("it is as before `{what}`"), || {
            let (rules, addresses) = (rules()?, addresses()?);
            ensure!(rules == all && addresses == before, "{rules:?} {addresses:?}");
            Ok(())
        })?;
        home.reaches(INTERNET_V4).with_context(|| what.clone())?;
    }
    let log = bond.log(Host::Client);
    for said in ["removed rules of the routing policy", "set the tunnel's device down or took addresses"] {
        ensure!(log.contains(said), "{log}");
    }
    Ok(())
}

/// A tunnel without IPv6 blocks the IPv6 of what is captured.
pub(crate) fn a_family_that_the_tunnel_lacks_does_not_leak(lab: &Lab) -> anyhow::Result<()> {
    let home = Home::start(lab)?;
    for (scope, from) in [("all", "".to_owned()), ("lan", "from fd09::2 iif home".to_owned())] {
        let mut bond = configure(lab, &format!("capture = \"{scope}\""))?;
        let file = bond.configuration(Host::Client);
        let text = std::fs::read_to_string(&file)?;
        let ipv4 = text.lines().map(|line| match line.strip_prefix("address = ") {
            Some(_) => format!("address = \"{}/24\"\n", bonding_testkit::bond::CLIENT_V4),
            None => format!("{line}\n"),
        });
        std::fs::write(&file, ipv4.collect::<String>())?;
        bond.start_server()?;
        bond.start_client_alone()?;
        home.reaches(INTERNET_V4)?;
        // A router that forwards IPv6.
        on(lab, Host::Client, "sysctl -q -w net.ipv6.conf.all.forwarding=1")?;
        let (is_answered, said) = home.ping(INTERNET_V6)?;
        ensure!(!is_answered && said.contains("nreachable"), "{scope}: {said}");
        let get = format!("ip -6 route get {INTERNET_V6} {from}");
        ensure!(on(lab, Host::Client, get.trim_end()).is_err(), "{scope}: IPv6 has a way");
        on(lab, Host::Client, "sysctl -q -w net.ipv6.conf.all.forwarding=0")?;
        bond.stop()?;
    }
    let beside = home.beside()?;
    ensure!(beside == 0, "{beside} packets left beside the bond");
    Ok(())
}

/// Hosts behind the client keep their addresses where the server routes their network to it, and
/// are reached from there.
pub(crate) fn a_network_that_the_server_knows_keeps_its_addresses(lab: &Lab) -> anyhow::Result<()> {
    let home = Home::start(lab)?;
    let mut bond = configure(lab, "capture = \"lan\"")?;
    let file = bond.configuration(Host::Server);
    let text = std::fs::read_to_string(&file)?;
    let routed = text.replace("name = \"home\"", "name = \"home\"\nroutes = [\"192.168.9.0/24\"]");
    std::fs::write(&file, routed)?;
    on(lab, Host::Server, "nft add table inet seen")?;
    on(lab, Host::Server, "nft add chain inet seen in { type filter hook prerouting priority 0 ; }")?;
    on(lab, Host::Server, &format!("nft add rule inet seen in iifname {TUNNEL} ip saddr {HOME_V4} counter"))?;
    bond.start_server()?;
    bond.start_client_alone()?;
    home.reaches(SERVER_V4)?;
    eventually("the server sees the address of the host behind the client", || {
        home.ping(SERVER_V4)?;
        let rules = on(lab, Host::Server, "nft list table inet seen")?;
        ensure!(!rules.contains("packets 0"), "{rules}");
        Ok(())
    })?;
    let mut ping = lab.host(Host::Server).command("ping");
    let (is_answered, said) =
        pinged(ping.args(["-n", "-c", "3", "-i", "0.2", "-W", "1"]).arg(HOME_V4.to_string()))?;
    ensure!(is_answered, "{said}");
    home.downloads()?;
    bond.stop()
}

/// With `fallback = true` packets go directly while the bond is down, and into it while it is up.
pub(crate) fn captured_traffic_falls_back_where_it_may(lab: &Lab) -> anyhow::Result<()> {
    let home = Home::start(lab)?;
    let before = without_counts(&traces(lab, Host::Client)?);
    let link = first_link(lab)?;
    let mut bond = configure(lab, "capture = \"all\"\nfallback = true")?;
    bond.start_client_alone()?;
    let goes_by = |expected: &str| {
        eventually(&format!("packets go by {expected}"), || {
            for from in ["", &format!("from {HOME_V4} iif home")] {
                let way = way(lab, from)?;
                ensure!(way == expected, "{from}: {way}");
            }
            Ok(())
        })
    };
    let leaves_beside = |moment: &str| {
        let count = home.beside()?;
        home.ping(INTERNET_V4)?;
        ensure!(home.beside()? > count, "{moment}: nothing goes directly");
        anyhow::Ok(())
    };
    eventually("the client runs", || bond.status(Host::Client).map(drop))?;
    goes_by(&link)?;
    leaves_beside("before the bond is up")?;
    bond.start_server()?;
    goes_by(TUNNEL)?;
    home.reaches(INTERNET_V4)?;
    bond.kill(Host::Server)?;
    goes_by(&link)?;
    leaves_beside("without a server")?;
    bond.start_server()?;
    goes_by(TUNNEL)?;
    home.reaches(INTERNET_V4)?;
    bond.kill(Host::Client)?;
    goes_by(&link).context("after a crash")?;
    bond.start_client_alone()?;
    goes_by(TUNNEL)?;
    bond.stop()?;
    is_as_before(lab, &before)
}
