//! Client, server, links and real inner transports in virtual time.
