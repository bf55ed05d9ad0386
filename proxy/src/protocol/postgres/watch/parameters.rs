//! The parameters of Bind and FunctionCall.

use super::{
    super::fields::{Fields, bounded, not_kept},
    MOST_KEPT, values,
};
use tidegate_grants::Masks;
use tidegate_recorder::event::Parameter;

/// The parameters in `body`, which starts with their formats, up to the first that is not here whole, and that one's head. `beyond` bytes of
/// the message lie behind `body`. `types`: their OIDs, as far as they are known.
pub(super) fn parameters(body: &mut Fields<'_>, beyond: usize, types: Option<&[u32]>) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    let formats = formats(body);
    for nth in 0..usize::from(body.u16().unwrap_or(0)) {
        let Some(counted) = body.counted() else { break };
        let Some((bytes, missing)) = counted else {
            parameters.push(Parameter::Null);
            continue;
        };
        let oid = types.and_then(|types| types.get(nth)).copied().unwrap_or(0);
        parameters.push(value(format(&formats, nth), oid, bytes, missing));
        if missing > 0 {
            break;
        }
    }
    if beyond > 0 {
        let note =
            format!("… (the last {beyond} bytes of this message are kept as they came, from-client, before this)");
        parameters.push(Parameter::Text(note));
    }
    parameters
}

/// Format codes, as Bind has them for its parameters and its results.
pub(super) fn formats(body: &mut Fields<'_>) -> Vec<u16> {
    (0..body.u16().unwrap_or(0)).map_while(|_| body.u16()).collect()
}

/// No format: text. One: for all. Else one each.
pub(super) fn format(formats: &[u16], nth: usize) -> u16 {
    let format = if formats.len() == 1 { formats.first() } else { formats.get(nth) };
    format.copied().unwrap_or(0)
}

/// A value in this format (1 is binary) and of this type, of which `missing` bytes are not here.
pub(super) fn value(format: u16, oid: u32, value: &[u8], missing: usize) -> Parameter {
    if format == 1 { binary(oid, value, missing) } else { Parameter::Text(cut(bounded(value, MOST_KEPT), missing)) }
}

/// Whether a value has no name of what is masked in it, as a document may have; what is not understood may.
pub(super) fn shows(masks: &Masks, value: &Parameter) -> bool {
    masks.is_empty()
        || match value {
            Parameter::Text(text) | Parameter::Typed { text, .. } => masks.named_in(text) == 0,
            Parameter::Binary(_) | Parameter::Raw { .. } => false,
            Parameter::Null | Parameter::Masked => true,
        }
}

/// What SQL calls the types with these OIDs. One that is not built in has no name that would be the same elsewhere.
pub(super) fn type_names(types: Option<&[u32]>) -> Vec<String> {
    let known = types.unwrap_or_default().iter().rposition(|oid| *oid != 0).map_or(0, |last| last + 1);
    types.unwrap_or_default().iter().take(known).map(|oid| type_name(*oid)).collect()
}

/// The same of one.
pub(super) fn type_name(oid: u32) -> String {
    match values::known(oid) {
        _ if oid == 0 => String::new(),
        Some(kind) => values::name(&kind),
        None => format!("OID {oid}"),
    }
}

/// A value of this type, of which `missing` bytes are not here.
fn binary(oid: u32, value: &[u8], missing: usize) -> Parameter {
    let whole = missing == 0;
    match values::known(oid) {
        Some(kind) if whole && let Some(text) = values::text(&kind, value) => {
            Parameter::Typed { kind: values::name(&kind), text }
        }
        Some(kind) if values::is_text(&kind) => {
            Parameter::Typed { kind: values::name(&kind), text: cut(bounded(value, MOST_KEPT), missing) }
        }
        _ => {
            let hex = cut(data_encoding::HEXLOWER.encode(value), missing);
            if oid == 0 { Parameter::Binary(hex) } else { Parameter::Raw { oid, hex } }
        }
    }
}

fn cut(text: String, missing: usize) -> String {
    if missing == 0 { text } else { text + &not_kept(missing) }
}
