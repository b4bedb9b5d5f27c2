//! Why a link delivers less than was sent on it, or later: one detector for each cause.
//!
//! A detector owns what it remembers, takes observations, and gives a finding. It changes no rate:
//! the phase that asked it acts on the finding, and names the [`Cause`] to the model.

pub(super) mod competitor;
pub(super) mod drain_test;
pub(super) mod ecn_mark;
pub(super) mod own_queue;
pub(super) mod policer;
pub(super) mod random_loss;

pub(super) use crate::stats::Cause;
