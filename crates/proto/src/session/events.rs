//! What happened and is worth a log line, in order, and whether the session is connected.

use std::collections::VecDeque;

use crate::event::Event;

/// Events that were not polled yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    connected: bool,
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        self.queue.push_back(event);
    }

    pub(super) fn extend(&mut self, events: Option<Event>) {
        self.queue.extend(events);
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    /// Whether no event waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a link carries data.
    pub(super) const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether a link carries data now; a change is an event.
    pub(super) fn set_connected(&mut self, connected: bool) {
        if connected != self.connected {
            self.connected = connected;
            self.queue.push_back(if connected { Event::Connected } else { Event::Disconnected });
        }
    }
}
