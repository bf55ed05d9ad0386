//! Binary arrays as PostgreSQL would write them (its `array_send` and `array_out`).

use super::{super::fields::Fields, values};
use std::fmt::Write as _;
use tokio_postgres::types::Type;

/// PostgreSQL's own limit (`MAXDIM`).
const MOST_DIMENSIONS: usize = 6;

struct Dimension {
    length: usize,
    /// The index of its first element.
    first: i32,
}

/// An array of this; none if it is not understood.
pub(super) fn text(of: &Type, value: &[u8]) -> Option<String> {
    let mut value = Fields(value);
    let (count, _has_nulls, oid) = (usize::try_from(value.u32()?).ok()?, value.u32()?, value.u32()?);
    if count > MOST_DIMENSIONS || oid != of.oid() {
        return None;
    }
    let mut dimensions = Vec::with_capacity(MOST_DIMENSIONS);
    for _ in 0..count {
        let length = usize::try_from(value.u32()?).ok()?;
        dimensions.push(Dimension { length, first: i32::from_be_bytes(value.array()?) });
    }
    if dimensions.is_empty() {
        return value.0.is_empty().then(|| "{}".to_owned());
    }
    let mut elements = Vec::new();
    while !value.0.is_empty() {
        elements.push(element(of, &mut value)?);
    }
    let all = dimensions.iter().try_fold(1_usize, |all, dimension| all.checked_mul(dimension.length))?;
    (all == elements.len() && all > 0).then(|| write(&dimensions, &elements))
}

fn element(of: &Type, value: &mut Fields<'_>) -> Option<String> {
    let length = value.u32()?;
    if length == u32::MAX {
        return Some("NULL".to_owned());
    }
    let text = values::text(of, value.bytes(usize::try_from(length).ok()?)?)?;
    let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace() || c == '\x0b';
    let plain = !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special);
    if plain {
        return Some(text);
    }
    Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// There are as many elements as the dimensions have places.
fn write(dimensions: &[Dimension], elements: &[String]) -> String {
    let mut text = String::new();
    if dimensions.iter().any(|dimension| dimension.first != 1) {
        for Dimension { length, first } in dimensions {
            let last = i64::from(*first) + i64::try_from(*length).unwrap_or(i64::MAX) - 1;
            let _ = write!(text, "[{first}:{last}]"); // a String takes everything
        }
        text.push('=');
    }
    // How many elements a brace of each depth holds, the innermost last.
    let mut held = 1;
    let mut sizes: Vec<usize> = dimensions
        .iter()
        .rev()
        .map(|dimension| {
            held *= dimension.length;
            held
        })
        .collect();
    sizes.reverse();
    for (nth, element) in elements.iter().enumerate() {
        if nth > 0 {
            text.push(',');
        }
        let begin = sizes.iter().filter(|size| nth % **size == 0).count();
        text.extend(std::iter::repeat_n('{', begin));
        text.push_str(element);
        let end = sizes.iter().filter(|size| (nth + 1) % **size == 0).count();
        text.extend(std::iter::repeat_n('}', end));
    }
    text
}
