//! A link emulator as a state machine: rate, delay, jitter, loss, queue limit, outages.
