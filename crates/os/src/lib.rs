//! Linux: TUN with offloads, UDP sockets with GSO and GRO, routes, NAT, privileges.
