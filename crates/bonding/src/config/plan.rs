//! Turns configurations into plans for the engine.

use bonding_proto::LinkId;
use bonding_proto::config::{ClientConfig, PlainPeer};

use super::client::Client;
use super::common::{Mtu, Sending, Status};
use super::server::{Invited, Peer, PeerLink, Server};
use crate::engine::plan::{
    ClientPlan, Home, InvitedPlan, LinkPlan, NatPlan, PeerPlan, RunPlan, SealingPlan, ServerPlan, Split,
    TunnelPlan,
};
use crate::state::usage;

impl Client {
    /// The engine's part of it.
    pub fn plan(&self) -> ClientPlan {
        let link = |link: &super::Link| LinkPlan {
            name: link.name.clone(),
            interface: link.interface.clone(),
            source: link.source,
            port: link.port,
            security: link.security,
            priority: link.priority,
            role: link.role,
            tx_rate: link.up,
            rx_rate: link.down,
            cap: link.cap,
            flows: link.flows,
        };
        ClientPlan {
            tunnel: TunnelPlan {
                interface: self.interface.clone(),
                addresses: self.addresses.clone(),
                mtu: fixed(self.mtu),
            },
            hosts: self.hosts.clone(),
            ports: self.ports,
            sealing: self.public_key.filter(|_| self.sealed()).map(|server| SealingPlan {
                server,
                private_key_file: self.private_key_file.clone(),
                preshared_key_file: self.preshared_key_file.clone(),
            }),
            links: self.links.iter().map(link).collect(),
            discovery: self.discovery.clone(),
            split: self.split,
            capture: self.capture.clone(),
            usage_file: usage::file(&self.private_key_file),
            run: run(&self.sending, &self.status, self.mss_clamp),
        }
    }
}

impl Server {
    /// The engine's part of it.
    pub fn plan(&self) -> ServerPlan {
        ServerPlan {
            tunnel: TunnelPlan {
                interface: self.interface.clone(),
                addresses: self.addresses.clone(),
                mtu: fixed(self.mtu),
            },
            listen: self.listen,
            ports: self.ports,
            private_key_file: self.private_key_file.clone(),
            clients: self.clients.iter().map(peer).collect(),
            invited: self.invited.iter().map(invited).collect(),
            nat: self.nat.as_ref().map(|nat| NatPlan { egress: nat.egress.clone() }),
            takes_streams: self.split != Split::Off,
            reach: self.reach,
            run: run(&self.sending, &self.status, self.mss_clamp),
        }
    }
}

fn peer(peer: &Peer) -> PeerPlan {
    let plain = |(id, link): (u8, &PeerLink)| {
        link.remote.map(|remote| PlainPeer { link: LinkId(id), remote, tx_rate: link.down })
    };
    let home = |link: &PeerLink| Some(Home { remote: link.remote?, interface: link.interface.clone() });
    let sealed_rate = |link: &PeerLink| link.down.filter(|_| link.remote.is_none());
    PeerPlan {
        config: ClientConfig {
            name: peer.name.clone(),
            prefixes: peer.prefixes().collect(),
            plain: (0..=u8::MAX).zip(&peer.links).filter_map(plain).collect(),
            public_key: peer.public_key,
            preshared: None,
            addresses: Vec::new(),
            tx_rates: peer.links.iter().map(sealed_rate).collect(),
        },
        addresses: peer.addresses.clone(),
        preshared_key_file: peer.preshared_key_file.clone(),
        links: peer.links.iter().map(|link| link.name.clone()).collect(),
        homes: peer.links.iter().filter_map(home).collect(),
        reach: peer.reach,
    }
}

fn invited(invited: &Invited) -> InvitedPlan {
    let Invited { name, routes, reach } = invited.clone();
    InvitedPlan { name, routes, reach }
}

fn run(sending: &Sending, status: &Status, mss_clamp: bool) -> RunPlan {
    RunPlan {
        sending: bonding_proto::config::Sending {
            policy: sending.policy,
            recovery: sending.recovery,
            rules: sending.rules.as_slice().into(),
        },
        heartbeat_interval: sending.heartbeat_interval,
        compression: sending.compression,
        mss_clamp,
        status_interval: status.interval,
        state_file: status.state_file(),
        trace: None,
    }
}

fn fixed(mtu: Mtu) -> Option<u16> {
    match mtu {
        Mtu::Auto => None,
        Mtu::Fixed(bytes) => Some(bytes),
    }
}

#[cfg(test)]
mod tests {
    use bonding_os::nat::Reach;
    use bonding_proto::view::LinkRole;

    use super::super::{client_from_text, server_from_text};
    use super::Home;

    #[test]
    fn a_client_keeps_its_links_in_order_with_their_ports() {
        let text = "[server]\nhost = \"10.0.0.9\"\nports = \"9001-9002\"\n[status]\nsocket = \"/run/x/c.sock\"\n\
                    [[link]]\ninterface = \"a\"\nup = \"1mbit\"\nsecurity = \"plain\"\n\
                    [[link]]\ninterface = \"b\"\nrole = \"never\"\nsecurity = \"plain\"\n\
                    [[link]]\ninterface = \"c\"\ndown = \"2mbit\"\nsecurity = \"plain\"\n";
        let plan = client_from_text("c", text).unwrap().config.plan();
        let links: Vec<_> = plan
            .links
            .iter()
            .map(|link| {
                (
                    link.name.as_str(),
                    link.port,
                    link.tx_rate.map(|r| r.as_bps()),
                    link.rx_rate.map(|r| r.as_bps()),
                )
            })
            .collect();
        let never = ("b", 9_002, None, None);
        assert_eq!(links, [("a", 9_001, Some(1_000_000), None), never, ("c", 9_001, None, Some(2_000_000))]);
        let roles: Vec<_> = plan.links.iter().map(|link| link.role).collect();
        assert_eq!(roles, [LinkRole::Primary, LinkRole::Never, LinkRole::Primary]);
        assert_eq!(plan.tunnel.mtu, None);
        assert_eq!(plan.run.state_file, std::path::Path::new("/run/x/c.state"));
    }

    #[test]
    fn a_servers_plan_lists_clients_links_and_routes() {
        let text = "[nat]\nenabled = false\n[routing]\nallow = []\n[tunnel]\nmtu = 1400\n\
                    [[client]]\nname = \"home\"\naddress = \"10.99.0.2\"\nallow = [\"server\", \"clients\"]\n\
                    routes = [\"192.168.1.0/24\"]\n[[client.link]]\nname = \"adsl\"\nremote = \"10.200.0.1\"\n\
                    interface = \"wg0\"\n\
                    security = \"plain\"\ndown = \"10mbit\"\n";
        let plan = server_from_text("s", text).unwrap().config.plan();
        assert_eq!((&plan.nat, plan.reach), (&None, Reach::default()));
        assert_eq!(plan.tunnel.mtu, Some(1_400));
        let client = &plan.clients[0];
        let may = Reach { server: true, clients: true, ..Reach::default() };
        assert_eq!(client.reach, Some(may));
        let remote = "10.200.0.1".parse().unwrap();
        assert_eq!(client.homes, [Home { remote, interface: Some("wg0".to_owned()) }]);
        assert_eq!(client.links, ["adsl"]);
        let prefixes: Vec<_> =
            client.config.prefixes.iter().map(|p| format!("{}/{}", p.address, p.length)).collect();
        assert_eq!(prefixes, ["10.99.0.2/32", "192.168.1.0/24"]);
        let plain = &client.config.plain[0];
        assert_eq!((plain.link.0, plain.remote.to_string()), (0, "10.200.0.1".to_owned()));
        assert_eq!(plain.tx_rate.map(|rate| rate.as_bps()), Some(10_000_000));
    }
}
