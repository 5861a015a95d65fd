//! Ports for servers of tests that run at the same time.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

/// Below the range from which the kernel takes the local ports of outgoing connections (32768 on Linux): a server that is
/// down for a moment must find its port free when it comes back.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port that no other rig process of this machine uses while this value lives, whether or not a server listens on it.
#[derive(Debug)]
pub struct Port {
    host: Ipv4Addr,
    number: u16,
    _lock: Option<File>,
}

impl Port {
    /// Reserves one on 127.0.0.1.
    pub fn reserve() -> Result<Self> {
        Self::reserve_at(Ipv4Addr::LOCALHOST)
    }

    /// This one, of an address whose ports nobody else uses: that of a network namespace of our own.
    pub fn fixed(host: Ipv4Addr, number: u16) -> Self {
        Self {
            host,
            number,
            _lock: None,
        }
    }

    /// Reserves one on another address of this machine: the one at which pods reach it.
    pub fn reserve_at(host: Ipv4Addr) -> Result<Self> {
        let dir = std::env::temp_dir().join("fanout-e2e-ports");
        fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
        let span = RANGE.end - RANGE.start;
        // Any start will do that differs between processes and calls; the lock decides.
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.subsec_nanos());
        let start = (nanos / 100).wrapping_add(std::process::id().wrapping_mul(7919)) % u32::from(span);
        for step in 0..u32::from(span) {
            let number = RANGE.start + u16::try_from((start + step) % u32::from(span)).unwrap_or(0);
            let path = dir.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("failed to lock {}", path.display()));
                }
            }
            if TcpListener::bind((host, number)).is_ok() {
                return Ok(Self {
                    host,
                    number,
                    _lock: Some(lock),
                });
            }
        }
        bail!(
            "no port of {host} between {} and {} is free; end some servers",
            RANGE.start,
            RANGE.end
        )
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its address, of this machine.
    pub fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// `address:number`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.number)
    }
}
