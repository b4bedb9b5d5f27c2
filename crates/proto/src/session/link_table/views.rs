//! The links as schedulers and the recovery see them.
//!
//! [`LinkView::usable`] is set here and nowhere else: a link is usable if its path is trusted, it
//! is not down, and it has keys if it is sealed; for one packet, also if the packet fits.

use crate::link::Link;
use crate::packet::{LinkId, SocketId, SocketSet};
use crate::scheduler;
use crate::time::Instant;
use crate::view::{LinkState, LinkView};

/// Views of all links, kept to be reused; valid within one `poll_transmit`.
#[derive(Debug, Default)]
pub(in crate::session) struct Views {
    all: Vec<LinkView>,
    /// The same for a packet that not every link carries.
    fitting: Vec<LinkView>,
    /// The driver's sockets that take no more.
    full: SocketSet,
}

impl Views {
    /// Makes the views of these links anew. `recovers`: losses on sealed links are sent again;
    /// `has_keys`: sealed links may send.
    pub(super) fn refresh(&mut self, links: &[Link], recovers: bool, has_keys: bool, now: Instant) {
        self.all.clear();
        self.all.extend(links.iter().map(|link| {
            let mut view = link.view(now);
            view.recovers = recovers && view.is_sealed;
            view.usable =
                link.path().is_trusted() && link.state() != LinkState::Down && (has_keys || !view.is_sealed);
            view
        }));
        if !self.full.is_empty() {
            self.wait_for_room(links, now);
        }
    }

    /// Of links of both kinds, those of the other kind than the one that is preferred carry flows
    /// of their own: sealed links and plain ones count apart. Of the links that serve the one of
    /// the best role and priority is preferred, of those that are alike a sealed one.
    #[inline(never)]
    pub(super) fn set_apart(&mut self) {
        let preferred =
            scheduler::serving(&self.all).min_by_key(|view| (view.role, view.priority, !view.is_sealed));
        let Some(is_sealed) = preferred.map(|view| view.is_sealed) else { return };
        self.all.iter_mut().for_each(|view| view.is_apart = view.is_sealed != is_sealed);
    }

    /// Links over full sockets have no credit. Apart, as it is rare.
    #[inline(never)]
    fn wait_for_room(&mut self, links: &[Link], now: Instant) {
        let is_full =
            |link: &Link| link.path().data_destination().is_some_and(|to| self.full.contains(to.path.socket));
        for (view, _) in self.all.iter_mut().zip(links).filter(|(_, link)| is_full(link)) {
            view.wait_for_room(now);
        }
    }

    /// Views of all links.
    pub(in crate::session) fn all(&self) -> &[LinkView] {
        &self.all
    }

    pub(in crate::session) fn get(&self, id: LinkId) -> Option<&LinkView> {
        self.all.get(id.index())
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut LinkView> {
        self.all.get_mut(id.index())
    }

    /// The views for a packet of `bytes`: links that do not carry it are not usable.
    pub(in crate::session) fn fitting(&mut self, bytes: usize) -> &[LinkView] {
        let least = self.all.iter().map(|view| view.mtu).min().unwrap_or(0);
        if bytes <= least {
            return &self.all;
        }
        self.fitting.clear();
        self.fitting.extend(self.all.iter().map(|view| {
            let mut view = *view;
            view.usable &= view.mtu >= bytes;
            view
        }));
        &self.fitting
    }

    /// A packet of `bytes` will go over the link.
    pub(in crate::session) fn charge(&mut self, id: LinkId, bytes: usize, now: Instant) {
        if let Some(view) = self.get_mut(id) {
            view.charge(bytes, now);
        }
    }

    /// A socket takes no more, or has room again. Whether that is another state than before.
    pub(in crate::session) fn set_socket_full(&mut self, socket: SocketId, is_full: bool) -> bool {
        let mut full = self.full;
        full.set(socket, is_full);
        self.set_full(full)
    }

    /// These sockets take no more. Whether these are others than before.
    pub(in crate::session) fn set_full(&mut self, full: SocketSet) -> bool {
        let changed = self.full != full;
        self.full = full;
        changed
    }
}
