//! An address by DHCP.

use core::time::Duration;
use std::io;

use millrace_port::clock;
use millrace_stack::{DhcpState, Lease};

use crate::completion::Completions;
use crate::{Channel, Wake};

impl Channel {
    /// What a DHCP server gave, while it is in use.
    pub fn lease(&self) -> Option<&Lease> {
        self.stack.dhcp_lease()
    }

    /// Where the DHCP client stands; `None` without one.
    pub fn dhcp_state(&self) -> Option<DhcpState> {
        self.stack.dhcp_state()
    }

    /// Turns until there is a lease, for at most `timeout`. Returns whether there is one. To be
    /// called before anything is opened: completions are not told.
    ///
    /// # Errors
    /// `InvalidInput` without [`crate::Config::dhcp`]; when the port is of no more use.
    pub fn wait_for_lease(&mut self, timeout: Duration) -> io::Result<bool> {
        self.check_open()?;
        if self.stack.dhcp_state().is_none() {
            let text = "the channel was not told to get an address by DHCP";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut batch = Completions::new();
        self.now = clock::now();
        let end = self.now + timeout;
        while self.lease().is_none() {
            self.begin(&mut batch);
            match self.run(&mut batch, Some(end), |channel| channel.lease().is_some())? {
                Wake::Work | Wake::Bell => {}
                Wake::Timeout | Wake::Signal | Wake::Exhausted => break,
            }
        }
        self.begin(&mut batch);
        Ok(self.lease().is_some())
    }
}
