//! How many Services and endpoints a measurement is made with.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A number of Services with a number of endpoints each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Size {
    /// Services.
    pub services: usize,
    /// Endpoints of each of them.
    pub endpoints: usize,
}

/// The ClusterIP range of a world has 65,536 addresses, some of which are taken.
const MAX_SERVICES: usize = 60_000;
/// More would run into the addresses of the world itself.
const MAX_ENDPOINTS: usize = 50;

impl Size {
    /// Reads `SERVICES` or `SERVICESxENDPOINTS`; without the second part the number of endpoints is `endpoints`.
    ///
    /// # Errors
    /// A text that completes "the size TEXT ...".
    pub fn parse(text: &str, endpoints: usize) -> Result<Self, String> {
        let (services, endpoints) = match text.split_once('x') {
            None => (number(text, MAX_SERVICES, "Services")?, endpoints),
            Some((services, endpoints)) => (
                number(services, MAX_SERVICES, "Services")?,
                number(endpoints, MAX_ENDPOINTS, "endpoints of each Service")?,
            ),
        };
        Ok(Self {
            services,
            endpoints,
        })
    }
}

fn number(text: &str, max: usize, what: &str) -> Result<usize, String> {
    let number = text
        .trim()
        .parse()
        .map_err(|_| format!("'{text}' is not a number of {what}"))?;
    if (1..=max).contains(&number) {
        Ok(number)
    } else {
        Err(format!("there can be 1 to {max} {what}, not {number}"))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, 1)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} x {}", self.services, self.endpoints))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(
            Size::parse("1000", 5),
            Ok(Size {
                services: 1000,
                endpoints: 5
            })
        );
        assert_eq!(
            Size::parse("10000x2", 5),
            Ok(Size {
                services: 10_000,
                endpoints: 2
            })
        );
        for (text, want) in [
            ("", "'' is not a number of Services"),
            ("ten", "'ten' is not a number of Services"),
            ("10x", "'' is not a number of endpoints"),
            ("0", "not 0"),
            ("100000", "1 to 60000 Services"),
            ("1x1000", "1 to 50 endpoints"),
        ] {
            let message = Size::parse(text, 5).expect_err(text);
            assert!(message.contains(want), "{message}");
        }
    }
}
