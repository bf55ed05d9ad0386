//! References: what somebody who was refused can say to an admin, and what the admin looks the refusal up by.
//!
//! What always holds: a reference is random and made before anything about its visit is known, so it tells nobody
//! anything; whatever is refused of one visit has the same one. It can be read aloud: 8 characters of Crockford's
//! base32, in which no letter looks like a digit (<https://www.crockford.com/base32.html>).

use crate::name::InvalidName;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use utoipa::ToSchema;

/// The digits, by value.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// So many of them make a reference: 40 bits.
const LENGTH: usize = 8;

/// One visit's reference, like `7K3F-9Q2M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Reference([u8; LENGTH]);

impl Reference {
    /// A new one. Where the system has no randomness left it is that of nobody: `0000-0000`.
    #[allow(clippy::new_without_default, reason = "two calls give two references")]
    pub fn new() -> Self {
        let mut random = [0u8; LENGTH];
        if getrandom::fill(&mut random).is_err() {
            random = [0; LENGTH];
        }
        Self(random.map(|byte| byte % 32))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, value) in self.0.iter().enumerate() {
            let digit = DIGITS.get(usize::from(*value)).map_or('0', |digit| char::from(*digit));
            let dash = if place == LENGTH / 2 { "-" } else { "" };
            write!(f, "{dash}{digit}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidName;

    /// As a person types it: in either case, with or without the dash, O for 0 and I or L for 1.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = InvalidName { what: "reference", rule: "8 letters and digits, like 7K3F-9Q2M" };
        let mut typed = text.bytes().filter(|byte| *byte != b'-');
        let mut values = [0; LENGTH];
        for value in &mut values {
            let digit = match typed.next().map(|byte| byte.to_ascii_uppercase()) {
                Some(b'O') => b'0',
                Some(b'I' | b'L') => b'1',
                Some(digit) => digit,
                None => return Err(invalid),
            };
            let place = DIGITS.iter().position(|known| *known == digit);
            *value = place.and_then(|place| u8::try_from(place).ok()).ok_or_else(|| invalid.clone())?;
        }
        if typed.next().is_some() || text.len() > LENGTH + 1 { Err(invalid) } else { Ok(Self(values)) }
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_however_a_person_types_it() {
        for _ in 0..1000 {
            let reference = Reference::new();
            let text = reference.to_string();
            assert_eq!(text.len(), 9);
            for typed in [text.clone(), text.to_lowercase(), text.replace('-', "")] {
                assert_eq!(typed.parse::<Reference>().unwrap(), reference);
            }
        }
        assert_eq!("oOiIlL00".parse::<Reference>().unwrap(), "0011-1100".parse().unwrap());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "7K3F", "7K3F-9Q2", "7K3F-9Q2MM", "7K3F-9Q2U", "--------", "7K3F9Q2é", "%' OR 1=1"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn two_visits_have_two_references() {
        assert_ne!(Reference::new(), Reference::new());
    }
}
