//! The loop against a scripted sink and a real Redis: what the delivery contract says, one test a rule.

mod commands;
mod contract;
mod script;
mod source;
