//! Free loopback ports, below the range from which the kernel takes outgoing connections' ports: so a server that a
//! test stops for a while finds its port free again.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

use super::Ports;

/// Linux's default `ip_local_port_range` begins at 32768.
const RANGE: Range<u16> = 20_000..32_000;

/// One free port per name; those of `before` if all of them are free.
pub(super) fn free(names: &[&str], before: Option<&Ports>) -> Result<Ports> {
    if let Some(before) = before {
        let names_match = names.iter().all(|name| before.contains_key(*name)) && before.len() == names.len();
        if names_match && before.values().all(|&port| bind(port).is_some()) {
            return Ok(before.clone());
        }
    }
    let free = free_ports(names.len())?;
    Ok(names.iter().map(|name| (*name).to_owned()).zip(free).collect())
}

/// So many free ports, all different, and others at each call: what was given out may not be taken yet.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    static GIVEN: Mutex<u32> = Mutex::new(0);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Commands in several checkouts begin at different places, and so seldom meet.
    let span = u32::from(RANGE.end - RANGE.start);
    let offset = std::process::id().wrapping_mul(31) % span;
    let candidates = (0..span).map(|i| (i, RANGE.start + ((offset + *given + i) % span) as u16));
    // Held until all are found, so that no port is found twice.
    let held: Vec<_> = candidates.filter_map(|(i, port)| Some((i, port, bind(port)?))).take(count).collect();
    ensure!(held.len() == count, "fewer than {count} free ports from {} to {}", RANGE.start, RANGE.end);
    *given += held.last().map_or(0, |(i, ..)| i + 1);
    Ok(held.into_iter().map(|(_, port, _)| port).collect())
}

fn bind(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_given() {
        let ports = free(&["a", "b", "c"], None).unwrap();
        let mut numbers: Vec<u16> = ports.values().copied().collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 3);
        assert!(numbers.iter().all(|port| RANGE.contains(port)));
        assert_eq!(free(&["a", "b", "c"], Some(&ports)).unwrap(), ports, "a restart keeps its ports");
        assert_ne!(free(&["a"], Some(&ports)).unwrap(), ports, "unless other names are asked for");
        let _taken = bind(ports["b"]).unwrap();
        assert!(free(&["a", "b", "c"], Some(&ports)).unwrap().values().all(|&port| port != ports["b"]));
    }
}
